"""The decoder of any Hugging Face causal language model as a backbone: states of every token, never logits.

Responses to one prompt share it in one of two ways, both with the numbers of separate rows: split attention
(`attention`), or a 4-D mask, the reference implementation. Which one a loaded model can do is `probe`'s to say.

r rows, n tokens, d width, m tokens of a medium, l tokens of the longest sequence.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Literal, cast, final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import create_masks_for_generate

from modalign.batch import Batch
from modalign.errors import ModelError, ShapeError
from modalign.layout import Layout
from modalign.roles import Backbone
from modalign_text import attention

Sharing = Literal["split", "mask", "off"]
Masks = Tensor | None | dict[str, Tensor | None]


@final
class CausalLMBackbone(Backbone):
    """The decoder of a causal language model, without its head.

    model: as transformers loads it. Its decoder becomes this module's child; the rest stays the caller's.
    sharing: `off` until `share` says otherwise.

    >>> from modalign_text.testing import tiny_causal_lm
    >>> backbone = CausalLMBackbone(tiny_causal_lm("llama"))
    >>> backbone.width, backbone.shares, backbone.blocks
    (32, False, ('LlamaDecoderLayer',))
    """

    sharing: Sharing
    reason: str  #: why responses share their prompt this way

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.decoder = cast(nn.Module, model.get_decoder())
        self.config = cast(PretrainedConfig, model.config.get_text_config())
        self.width = int(self.config.hidden_size)
        self.blocks = tuple(model._no_split_modules or ())
        self.facts = {"config": self.config.to_json_string()}
        self.native = str(self.config._attn_implementation)  # what the checkpoint was loaded with
        # some families make masks of their own; the function is theirs, the model is not kept
        self._make_masks = cast(
            Callable[..., Masks], getattr(type(model), "create_masks_for_generate", create_masks_for_generate)
        )
        self._mask_reads = frozenset(inspect.signature(self._make_masks).parameters)
        self._remembered: tuple[tuple[object, ...], dict[str, object]] | None = None
        self.share("off", "not asked for")

    def share(self, sharing: Sharing, reason: str) -> None:
        """Lay responses out as branches in this way from now on, or in rows of their own."""
        if sharing == "mask" and self.native not in ("sdpa", "eager"):
            raise ModelError(
                "a 4-D mask needs attention that reads one",
                got=f"attn_implementation={self.native}",
                fix="load with attn_implementation='sdpa' or 'eager', or sharing='off'",
            )
        wanted = attention.NAME if sharing == "split" else self.native
        if self.config._attn_implementation != wanted:
            cast(PreTrainedModel, self.decoder).set_attn_implementation(wanted)
            if self.config._attn_implementation != wanted:
                raise ModelError(
                    "this family's attention cannot be replaced",
                    got=f"{type(self.decoder).__name__} keeps {self.config._attn_implementation}",
                    fix="load with sharing='mask' or 'off'",
                )
        self.sharing, self.reason, self._remembered = sharing, reason, None
        self.shares = sharing != "off"

    def forward(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
        inputs = self.inputs(batch, embeddings) if batch.slots else {"input_ids": batch.tokens}
        typed = {name: value for name, value in batch.features.items() if name in self._mask_reads}
        if typed:
            arguments = {"attention_mask": self._typed_masks(batch.layout, typed, batch.device)}
            arguments["position_ids"] = batch.layout.index.to(batch.device)
        else:
            arguments = self._arguments(batch.layout, batch.device)
        positions = {} if batch.positions is None else {"position_ids": batch.positions}
        return self.run(**inputs, **(arguments | positions))

    def run(self, **arguments: object) -> Tensor:
        """States ``r n d`` after the final norm, of whatever the decoder is given."""
        return self.decoder(**arguments, use_cache=False).last_hidden_state

    def embedded(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
        """Input embeddings ``r n d`` with every medium in its slots, of a batch with or without media."""
        if not batch.slots:
            return cast(Tensor, cast(PreTrainedModel, self.decoder).get_input_embeddings()(batch.tokens))
        return cast(Tensor, self.inputs(batch, embeddings)["inputs_embeds"])

    def inputs(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> dict[str, object]:
        """Input embeddings ``r n d`` with every medium in its slots, and what later layers are given for some.

        An embedding wider than the backbone holds further features behind its first d numbers: those that layers
        0, 1, ... add to their states (deepstack, https://arxiv.org/abs/2406.04334).
        """
        table = cast(PreTrainedModel, self.decoder).get_input_embeddings()
        inputs = cast(Tensor, table(batch.tokens))
        width = inputs.shape[-1]
        rows: list[Tensor] = []
        columns: list[Tensor] = []
        taken: list[Tensor] = []
        needed: dict[str, int] = {}
        for slot in batch.slots:
            needed[slot.digest] = max(needed.get(slot.digest, 0), slot.first + slot.stop - slot.start)
        for slot in batch.slots:
            medium, size, whole = embeddings[slot.digest], slot.stop - slot.start, needed[slot.digest]
            if medium.ndim != 2 or medium.shape[0] != whole or medium.shape[1] % width:
                raise ShapeError(
                    f'expected "m d" with m={whole}, d={width} for a slot of row {slot.row}',
                    got=(*medium.shape,),
                    fix="an encoder must give as many embeddings as its preparer laid out slots",
                )
            rows.append(torch.full((size,), slot.row))
            columns.append(torch.arange(slot.start, slot.stop))
            taken.append(medium[slot.first : slot.first + size])
        place = torch.cat(rows).to(inputs.device), torch.cat(columns).to(inputs.device)
        first = torch.cat([one[:, :width] for one in taken]).to(inputs.dtype)
        found: dict[str, object] = {"inputs_embeds": inputs.index_put(place, first)}
        if (widest := max(one.shape[1] for one in taken)) > width:
            deep = inputs.new_zeros((*inputs.shape[:2], widest - width))
            seen = torch.zeros(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
            for row, column, one in zip(rows, columns, taken, strict=True):
                if one.shape[1] > width:
                    here = row.to(inputs.device), column.to(inputs.device)
                    deep = deep.index_put(here, one[:, width:].to(inputs.dtype))
                    seen[here] = True
            found["visual_pos_masks"] = seen
            found["deepstack_visual_embeds"] = list(deep[seen].split(width, dim=-1))
        return found

    def _arguments(self, layout: Layout, device: torch.device) -> dict[str, object]:
        """Mask, positions and plan of a layout; remembered, since policy and reference read the same one."""
        key = (layout, device, self.dtype)
        if self._remembered is None or self._remembered[0] != key:
            self._remembered = (key, self._prepare(layout, device))
        return self._remembered[1]

    def _prepare(self, layout: Layout, device: torch.device) -> dict[str, object]:
        positions = layout.index.to(device)
        if layout.plain:
            return {"attention_mask": layout.real.long().to(device), "position_ids": positions}
        if self.sharing == "off":
            raise ModelError(
                "this model cannot branch from a shared prompt",
                got=self.reason,
                fix="assemble batches with share=False (Model.shares says which)",
            )
        own = self.own_masks(layout.longest, device)
        if self.sharing == "split":
            # an empty mask passes through the decoder untouched and says "plainly causal"; None would be replaced
            causal = torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)
            masks = _each(own, lambda mask: causal if mask is None else mask)
            return {
                "attention_mask": masks,
                "position_ids": positions,
                attention.ARGUMENT: attention.plan(layout),
            }
        masks = _each(own, lambda mask: self.dress(layout.mask(None if mask is None else mask[0, 0]), device))
        return {"attention_mask": masks, "position_ids": positions}

    def _typed_masks(self, layout: Layout, typed: Mapping[str, Tensor], device: torch.device) -> Masks:
        """Masks of a family whose tokens see by their type (both ways within a picture), as the attention reads them.

        They are made of every whole sequence alone, and then laid into the rows.
        """
        ends = [number for number in range(len(layout.spans)) if not any(s.parent == number for s in layout.spans)]
        paths = [(layout.spans[number].row, layout.tokens(number)) for number in ends]
        if self.sharing == "off" and not layout.plain:
            return cast(Masks, self._prepare(layout, device)["attention_mask"])  # says why it cannot
        types = {
            name: pad_sequence([value[row, path.to(value.device)] for row, path in paths], batch_first=True)
            for name, value in typed.items()
        }  # s l, of s sequences
        own = self.own_masks(layout.longest, device, rows=len(paths), **types)

        def laid(mask: Tensor | None) -> Tensor:
            whole = torch.eye(layout.width, dtype=torch.bool).repeat(layout.rows, 1, 1)
            causal = torch.ones(layout.longest, layout.longest, dtype=torch.bool).tril()
            for number, (row, path) in enumerate(paths):
                mine = causal if mask is None else mask[min(number, len(mask) - 1), 0].cpu()
                whole[row, path[:, None], path[None]] = mine[: len(path), : len(path)]
            return self.dress(whole, device)

        return _each(own, laid)

    def own_masks(self, length: int, device: torch.device, *, rows: int = 1, **types: Tensor) -> Masks:
        """What the family lets a plain row of ``length`` tokens see, ``1 1 l l`` of bool; None is plainly causal.

        A dict where layers differ: by the name of their type. This is how windows, chunks and the like come in.

        types: of the tokens, ``rows l`` by name, where what they see depends on it; the masks are ``rows 1 l l`` then.
        """
        function = self._make_masks
        given = {
            "config": self.config,
            # only its shape, type and device are read
            "inputs_embeds": torch.empty(rows, length, 0, dtype=self.dtype, device=device),
            "attention_mask": None,
            "cache": None,
            "past_key_values": None,  # what transformers called the cache before 5.24
            "position_ids": None,
            "cache_position": torch.arange(length, device=device),
            **types,
        }
        known = inspect.signature(function).parameters
        found = function(**{name: value for name, value in given.items() if name in known})
        # eager masks are added: 0 where a token is seen
        return _each(found, lambda mask: mask >= 0 if mask is not None and mask.is_floating_point() else mask)

    def dress(self, mask: Tensor, device: torch.device) -> Tensor:
        """A mask ``r n n`` of bool as the native attention reads it, ``r 1 n n``."""
        mask = mask[:, None].to(device)
        if self.native != "eager":
            return mask
        # eager attention adds its mask: a bool there would be added as 0 or 1, and nothing would be hidden
        low = torch.finfo(self.dtype).min
        return torch.zeros(mask.shape, dtype=self.dtype, device=device).masked_fill_(~mask, low)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, as the family's masks read it."""
        return cast(PreTrainedModel, self.decoder).dtype


def _each(masks: Masks, change: Callable[[Tensor | None], Tensor | None]) -> Masks:
    """The same change to one mask, or to the mask of every type of layer."""
    return {name: change(mask) for name, mask in masks.items()} if isinstance(masks, dict) else change(masks)
