"""Families whose decoder looks at media itself (cross-attention): each response gets a row, run by the whole model.

Nothing of a prompt can be shared then, and towers run once for every row. What the processor says of a row is taken as
it is: such families describe in it which tokens look at which medium.

r rows, n tokens, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, PretrainedConfig, PreTrainedModel

from modalign.batch import Batch, Medium
from modalign.errors import ModelError
from modalign.roles import Backbone, Content, Encoded, EncodedSlot, Encoder
from modalign_text.multimodal.given import given_of, paced
from modalign_text.multimodal.processing import ARGUMENTS, ProcessorWriter

_OF_ROWS = frozenset({"input_ids", "attention_mask"})


@final
class RowWriter(ProcessorWriter):
    """Media as the processor prepares them for one row of tokens, all of them at once."""

    def finish(self, one: Encoded, order: Mapping[str, Sequence[str]]) -> Encoded:
        if not one.slots:
            return one
        tensors = self._row(one, order)
        digest = hashlib.sha256(repr((one.tokens, sorted(order.items()))).encode()).hexdigest()
        # a row has one payload, whatever it shows; its place is the first placeholder
        first = min(slot.start for slot in one.slots)
        shown = {"media": sum(map(len, order.values()))}
        row = Medium(modality=next(iter(order)), tensors=tensors, cost=1, cacheable=False, extra=shown)
        return replace(one, slots=(EncodedSlot(start=first, stop=first + 1, digest=digest),), media={digest: row})

    def arguments(self, one: Encoded, device: torch.device, library: PreTrainedModel) -> dict[str, object]:
        ids = torch.tensor([one.tokens], device=device)
        rows = list(one.media.values())
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            **(placed(rows[0], device, cast(torch.dtype, library.dtype)) if rows else {}),
        }

    def _process(self, content: Content) -> tuple[Medium, str]:
        content = paced(content, self.settings[content.modality])
        medium, written = super()._process(content)
        # what the processor makes of it comes with the row it is in
        return replace(medium, tensors={}, extra={**medium.extra, "content": replace(content, tracks={})}), written

    def _row(self, one: Encoded, order: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
        """What the processor says of a whole row beside its tokens."""
        ids = list(one.tokens)
        text = cast(str, self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        media: dict[str, object] = {}
        for name, digests in order.items():
            given = [given_of(cast(Content, one.media[digest].extra["content"])) for digest in digests]
            media |= {ARGUMENTS[name][0]: [medium for medium, _ in given], **_together([one for _, one in given])}
        call = cast("Callable[..., BatchFeature]", self.processor)
        found = call(text=[text], return_tensors="pt", add_special_tokens=False, **media)
        if cast(Tensor, found["input_ids"])[0].tolist() != ids:
            raise ModelError(
                "this processor writes a row otherwise than its chat template does",
                got=type(self.processor).__name__,
                fix="use another family (docs/media.md lists those that were tried)",
            )
        return {name: value for name, value in found.items() if name not in _OF_ROWS and isinstance(value, Tensor)}


@final
class RowEncoder(Encoder):
    """Stands where towers would: the whole model encodes a row's media when it runs the row. Counts them."""

    def __init__(self, library: PreTrainedModel, modality: str, writer: RowWriter, towers: nn.ModuleDict) -> None:
        super().__init__()
        self.modality, self.towers, self._writer = modality, towers, writer
        self.width = int(library.config.get_text_config().hidden_size)
        self.rate = writer.rate(modality)

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        every = list(self.towers.values())
        return (
            [one for one in every if isinstance(one, PreTrainedModel)],
            [one for one in every if not isinstance(one, PreTrainedModel)],
        )

    @property
    def frozen(self) -> bool:
        return False  # nothing it gives is worth remembering

    @property
    def unstored(self) -> str:
        return "the decoder of this family looks at media itself, and the whole model runs its towers for each row"

    def prepare(self, content: Content) -> Medium:
        return self._writer.prepare(content)

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        self.ran(sum(cast(int, medium.extra["media"]) for medium in media))
        return [torch.zeros(medium.cost, 0) for medium in media]


@final
class WholeBackbone(Backbone):
    """The whole model but for its head, a row at a time.

    library: as transformers loads it.
    reason: why it cannot be taken apart.
    """

    shares = False

    def __init__(self, library: PreTrainedModel, reason: str) -> None:
        super().__init__()
        self.library = library
        self.reason = reason
        self.config = cast(PretrainedConfig, library.config.get_text_config())
        self.width = int(self.config.hidden_size)
        self.blocks = tuple(library._no_split_modules or ())

    def forward(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
        if not batch.layout.plain:
            raise ModelError(
                "this model cannot branch from a shared prompt",
                got=self.reason,
                fix="assemble batches with share=False (Model.shares says which)",
            )
        payloads = {slot.row: batch.media[slot.digest] for slot in batch.slots}
        dtype = cast(torch.dtype, self.library.dtype)
        states: list[Tensor] = []
        for row in range(batch.layout.rows):
            ids = batch.tokens[row, batch.layout.real[row].to(batch.device)][None]  # 1 n
            media = placed(payloads[row], batch.device, dtype) if row in payloads else {}
            states.append(self._run(input_ids=ids, attention_mask=torch.ones_like(ids), **media)[0])
        whole = pad_sequence(states, batch_first=True)  # r n d
        missing = batch.layout.width - whole.shape[1]
        return nn.functional.pad(whole, (0, 0, 0, missing)) if missing else whole

    def _run(self, **arguments: object) -> Tensor:
        """States ``1 n d`` after the final norm."""
        with _states_only(self.library) as found:
            cast("Callable[..., object]", self.library)(**arguments, use_cache=False)
        return found[0]


def _together(settings: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """The settings of several media for one call: lists one behind the other, the rest as the first has it."""
    found: dict[str, object] = {}
    for one in settings:
        for name, value in one.items():
            if isinstance(value, Mapping):
                before = cast("Mapping[str, object]", found.get(name, {}))
                found[name] = _together([before, cast("Mapping[str, object]", value)])
            elif isinstance(value, list):
                found[name] = [*cast("list[object]", found.get(name, [])), *value]
            else:
                found.setdefault(name, value)
    return found


def placed(medium: Medium, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a row where the model is, and of its type."""
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in medium.tensors.items()
    }


@contextmanager
def _states_only(library: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within it the decoder's states are caught, and the head is given one token: nobody reads its logits."""
    found: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[object, ...], output: object) -> None:
        found.append(cast(Tensor, getattr(output, "last_hidden_state")))  # noqa: B009 - outputs are many classes

    def cut(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][:, :1], *args[1:])

    head = cast(nn.Module, library.get_output_embeddings())
    hooks = [library.get_decoder().register_forward_hook(keep), head.register_forward_pre_hook(cut)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
