"""What a causal language model is beyond its modules: how it reads, writes and is saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast, final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modalign.config import GenerationConfig
from modalign.content import RAW, Message, Response
from modalign.heads.storage import save_heads
from modalign.integrations.peft import LoraAdapters
from modalign.model import Model
from modalign.roles import Assembly
from modalign_text.generation import generate
from modalign_text.preparer import ChatPreparer


@final
class CausalLMAssembly(Assembly):
    """A causal language model with its tokenizer.

    library: the model as transformers knows it; its decoder and head are the backbone's and the decoder's.
    """

    def __init__(
        self,
        library: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        preparer: ChatPreparer,
        adapters: LoraAdapters | None = None,
    ) -> None:
        self.library = library
        self.tokenizer = tokenizer
        self.preparer = self._chat = preparer
        self.adapters = self._lora = adapters
        self.takes = frozenset({"text"})
        self.gives = frozenset({"text"})

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._lora is None:
            self.library.save_pretrained(folder)
        elif merge:
            self.library.save_pretrained(folder, state_dict=self._lora.merged())
        else:
            self._lora.save(folder)
        self.tokenizer.save_pretrained(folder)
        if len(model.heads):
            save_heads(model.heads, folder)

    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        written = generate(
            self.library,
            [self._chat.prompt_ids(prompt) for prompt in prompts],
            config,
            stops=self.stops,
            pad=self.preparer.pad,
            progress=progress,
        )
        roles = (RAW if prompt[0].role == RAW else "assistant" for prompt in prompts)
        return [self._chat.response_of(ids, role=role) for ids, role in zip(written, roles, strict=True)]

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end a turn: the tokenizer's, the checkpoint's and the chat template's."""
        own = self.library.generation_config
        said = [] if own is None or own.eos_token_id is None else own.eos_token_id
        return self._chat.stop_ids | frozenset(said if isinstance(said, list) else [cast(int, said)])
