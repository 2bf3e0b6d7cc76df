"""What a language model is beyond its modules: how it reads, writes and is saved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast, final

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modalign.config import GenerationConfig
from modalign.content import RAW, Message, Response
from modalign.heads.storage import save_heads
from modalign.integrations.peft import LoraAdapters
from modalign.model import Model
from modalign.roles import Assembly, Encoded
from modalign_text.generation import apart, generate
from modalign_text.media import media_of
from modalign_text.preparer import ChatPreparer


class LanguageAssembly(Assembly):
    """A language model of transformers, whatever it reads beside words.

    library: the model as transformers knows it; its decoder and head are the backbone's and the decoder's.
    takes: the modalities beside text.
    """

    def __init__(
        self,
        library: PreTrainedModel,
        preparer: ChatPreparer,
        adapters: LoraAdapters | None,
        takes: frozenset[str] = frozenset(),
    ) -> None:
        self.library = library
        self.preparer = self._chat = preparer
        self.adapters = self._lora = adapters
        self.takes = takes | {"text"}
        self.gives = frozenset({"text"})

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if self._lora is None:
            self.library.save_pretrained(folder)
        elif merge:
            self.library.save_pretrained(folder, state_dict=self._lora.merged())
        else:
            self._lora.save(folder)
        self.save_rest(model, folder, merge=merge)
        if len(model.heads):
            save_heads(model.heads, folder)

    @abstractmethod
    def save_rest(self, model: Model, folder: Path, *, merge: bool) -> None:
        """Write what prepares its input, and what is before the language model and behind it."""

    @abstractmethod
    def given(self, model: Model, one: Encoded) -> Mapping[str, object]:
        """What the library's `generate` is given for a prompt with media, beside its tokens."""

    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        stops, pad = self.stops, self.preparer.pad
        words = [number for number, prompt in enumerate(prompts) if not media_of(prompt)]
        plain = [self._chat.prompt_ids(prompts[number]) for number in words]
        say = self._chat.words
        found = generate(self.library, plain, config, stops=stops, pad=pad, progress=progress, words=say)
        written = dict(zip(words, found, strict=True))
        for number in sorted(set(range(len(prompts))) - written.keys()):  # media of several prompts do not line up
            one = self._chat.prompt(prompts[number])
            media = self.given(model, one)
            own = apart(config, number=number)
            (written[number],) = generate(
                self.library, [one.tokens], own, stops=stops, pad=pad, progress=progress, media=media, words=say
            )
        roles = (RAW if prompt[0].role == RAW else "assistant" for prompt in prompts)
        return [self._chat.response_of(written[number], role=role) for number, role in enumerate(roles)]

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end a turn: the tokenizer's, the checkpoint's and the chat template's."""
        own = self.library.generation_config
        said = [] if own is None or own.eos_token_id is None else own.eos_token_id
        return self._chat.stop_ids | frozenset(said if isinstance(said, list) else [cast(int, said)])


@final
class CausalLMAssembly(LanguageAssembly):
    """A causal language model with its tokenizer."""

    def __init__(
        self,
        library: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        preparer: ChatPreparer,
        adapters: LoraAdapters | None = None,
    ) -> None:
        super().__init__(library, preparer, adapters)
        self.tokenizer = tokenizer

    def save_rest(self, model: Model, folder: Path, *, merge: bool) -> None:
        self.tokenizer.save_pretrained(folder)

    def given(self, model: Model, one: Encoded) -> Mapping[str, object]:
        return {}  # its preparer has refused media
