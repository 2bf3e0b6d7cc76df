"""What a causal language model is beyond its modules: how it reads, writes and is saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import cast, final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from modalign.config import GenerationConfig
from modalign.content import RAW, Message, Response
from modalign.errors import CheckpointError
from modalign.integrations.peft import LoraAdapters
from modalign.model import Model
from modalign.registry import registry
from modalign.roles import Assembly, Head
from modalign_text.config import HEADS, MANIFEST
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


def save_heads(heads: nn.ModuleDict, folder: Path) -> None:
    """Write reward heads beside a checkpoint: their weights, and a manifest that says what they are."""
    kinds = {registry.head(name): name for name in registry.entries("heads")}
    said: dict[str, dict[str, object]] = {}
    for name, head in heads.items():
        assert isinstance(head, Head)
        if type(head) not in kinds:
            raise CheckpointError(
                f"the head {name!r} is of a class that no plugin registers",
                got=type(head).__name__,
                fix="register it with `register_heads`, so that it can be loaded again",
            )
        said[name] = {"type": kinds[type(head)], "dimensions": list(head.dimensions)}
    state = {name: value.detach().cpu().clone().contiguous() for name, value in heads.state_dict().items()}
    save_file(state, folder / HEADS, metadata={"format": "pt"})
    manifest = {"modalign": version("modalign"), "heads": said}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def load_heads(folder: Path, width: int) -> dict[str, Head]:
    """The reward heads saved in a folder; none where it says nothing of any.

    width: of the backbone's states.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        state = load_file(folder / HEADS)
        heads = {
            str(name): registry.head(one["type"])(width, dimensions=tuple(one["dimensions"]))
            for name, one in manifest["heads"].items()
        }
        nn.ModuleDict(heads).load_state_dict(state)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(
            "the reward heads of this checkpoint cannot be read",
            where=str(folder),
            got=f"{type(error).__name__}: {error}",
            fix=f"copy {MANIFEST} and {HEADS} from the run again, or remove both to load the model without heads",
        ) from error
    return heads
