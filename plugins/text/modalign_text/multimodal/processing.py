"""Media through a checkpoint's own processor, one at a time: its tensors, and the placeholders it writes for each.

Alone, because what a processor makes of a medium must not depend on what else is in the row: the tokens of a prompt and
the tensors of its media come from the same call, whatever is laid beside them later.

n tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, cast

import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from modalign.batch import Medium
from modalign.content import Part
from modalign.errors import DataError, ModelError
from modalign.roles import Content, Encoded, MediaSettings
from modalign_text.media import Expansion, MediaWriter, Span, ordered
from modalign_text.multimodal.given import check_pace, given_of, paced
from modalign_text.multimodal.keeping import Kept
from modalign_text.multimodal.tracks import TRACKS, behind, decoded

#: of each modality: the processor's argument, and the argument of `get_text_with_replacements`
ARGUMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "image": ("images", "images_replacements"),
    "video": ("videos", "videos_replacements"),
    "audio": ("audio", "audio_replacements"),
}
#: what a processor says of tokens and not of media
OF_TOKENS: Final = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})


class ProcessorWriter(MediaWriter):
    """Media as a checkpoint's processor prepares and writes them.

    processor: of the checkpoint.
    settings: how media are decoded, by modality.
    """

    def __init__(
        self, library: PreTrainedModel, processor: ProcessorMixin, settings: Mapping[str, MediaSettings]
    ) -> None:
        if not hasattr(processor, "get_text_with_replacements"):
            raise ModelError(
                "this release of transformers cannot say what its processors write for a medium",
                got=type(processor).__name__,
                fix='pip install -U "transformers>=5.23,<6"',
            )
        self.processor = processor
        self.settings = settings
        self.takes = frozenset(settings)
        self._held = _placeholders(library, processor)
        self._skeleton = skeleton(library)
        self._tokens = frozenset(_names(self._skeleton))
        self._media: Kept[tuple[Medium, str]] = Kept()

    def facts(self, modality: str) -> Mapping[str, object]:
        """What a medium's embeddings depend on beside weights: how it is decoded and processed."""
        return {
            "family": type(self._skeleton).__name__,
            "config": self._skeleton.config.to_json_string(),
            "media": self.settings[modality].model_dump_json(),
            "processor": self.processor.to_json_string(),
        }

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The processor's own."""
        return cast(PreTrainedTokenizerBase, self.processor.tokenizer)

    @property
    def template(self) -> str | None:
        """The processor's chat template; None leaves it to the tokenizer."""
        found = self.processor.chat_template
        return found if isinstance(found, str) else None

    def said(self, part: Part) -> Mapping[str, object]:
        return {"type": part.modality}

    def plain(self, part: Part) -> str:
        return self.placeholder(part.modality)

    def placeholder(self, modality: str) -> str:
        """What a chat template writes for a medium."""
        return str(getattr(self.processor, f"{modality}_token"))

    def holds(self, token: int) -> bool:
        return token in self._held

    def medium(self, part: Part) -> Medium:
        return self._prepared(part)[0]

    def behind(self, part: Part) -> tuple[Part, ...]:
        return behind(part, self.medium(part))

    def expand(self, text: str, parts: Sequence[Part]) -> Expansion:
        by_modality: dict[str, list[Part]] = {}
        for part in parts:
            by_modality.setdefault(part.modality, []).append(part)
        for name in ARGUMENTS:
            found = text.count(self.placeholder(name)) if name in self.takes else 0
            if (wanted := len(by_modality.get(name, ()))) != found:
                raise DataError(
                    f"the chat template writes {found} placeholder(s) for {wanted} medium(s) of {name}",
                    field="prompt",
                    got=f"{self.placeholder(name) if name in self.takes else name!r} in {len(text)} characters",
                    fix="use a chat template that writes every medium once, or rows without what it leaves out",
                )
        if not parts:
            return Expansion(text=text)
        written = {ARGUMENTS[name][1]: [self._prepared(one)[1] for one in own] for name, own in by_modality.items()}
        texts, offsets = self.processor.get_text_with_replacements([text], **written)
        left = {name: iter(own) for name, own in by_modality.items()}
        spans: list[Span] = []
        for one in cast("list[Mapping[str, object]]", offsets[0]):
            old, new = cast("tuple[int, int]", one["span"]), cast("tuple[int, int]", one["new_span"])
            spans.append(Span(part=next(left[str(one["type"])]), old=old, start=new[0], stop=new[1]))
        return Expansion(text=texts[0], spans=tuple(spans))

    def finish(self, one: Encoded, order: Mapping[str, Sequence[str]]) -> Encoded:
        if not one.slots:
            return one
        ids = torch.tensor([one.tokens])
        types = self.types([one.tokens])
        media = [one.media[digest] for digests in order.values() for digest in digests]
        given: dict[str, object] = {**self.laid(media), "mm_token_type_ids": types}
        try:
            positions = positions_of(self._skeleton, ids, given)
        except (RuntimeError, ValueError, IndexError, StopIteration) as error:
            raise DataError(
                "what is left of this row is no sequence the model has positions for",
                field="prompt",
                got=f"{len(one.tokens)} tokens; {' '.join(str(error).split())[:200]}",
                fix="raise max_length, or set on_too_long to skip",
            ) from error
        features = {name: types[0] for name in ("token_type_ids", "mm_token_type_ids") if name in self._tokens}
        return replace(one, positions=positions, features=features)

    def laid(self, media: Sequence[Medium]) -> dict[str, Tensor]:
        """The tensors of several media as the model takes them: one behind the other, by name."""
        names = dict.fromkeys(name for medium in media for name in medium.tensors)
        return {name: join([medium.tensors[name] for medium in media if name in medium.tensors]) for name in names}

    def _prepared(self, part: Part) -> tuple[Medium, str]:
        """A medium and what is written for it, made once for all sequences and rows that hold it."""
        return self._media(part.digest, lambda: self._made(part))

    def _made(self, part: Part) -> tuple[Medium, str]:
        made = {one: self._process(found) for one, found in decoded(part, self.settings, self.rate).items()}
        for one, other in made.items():
            self._media.keep(one.digest, other)
        return made[part]

    def try_out(self, part: Part, content: Content) -> tuple[Medium, str]:
        """A medium of which the content is given, and what is written for it; remembered as that part's."""
        made = self._process(content)
        self._media.keep(part.digest, made)
        return made

    def arguments(self, one: Encoded, device: torch.device, library: PreTrainedModel) -> dict[str, object]:
        """What the whole model is called with for one sequence: its tokens, and the tensors of its media."""
        ids = torch.tensor([one.tokens], device=device)
        digests = [digest for own in ordered(one).values() for digest in own]
        types = self.types([one.tokens]).to(device)
        known = inspect.signature(type(library).forward).parameters
        typed = {name: types for name in ("token_type_ids", "mm_token_type_ids") if name in known}
        dtype = cast(torch.dtype, library.dtype)
        tensors = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in self.laid([one.media[digest] for digest in digests]).items()
        }
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **typed, **tensors}

    def types(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """The modality of each token as transformers numbers them, ``r n``: 0 is text."""
        # the common function: some processors have one of that name that counts images instead
        return torch.tensor(ProcessorMixin.create_mm_token_type_ids(self.processor, [list(row) for row in rows]))

    def prepare(self, content: Content) -> Medium:
        """A decoded medium as its encoder reads it."""
        return self._process(content)[0]

    def _process(self, content: Content) -> tuple[Medium, str]:
        name = content.modality
        token = self.placeholder(name)
        content = paced(content, self.settings[name])
        given, settings = self._given(content)
        try:
            found = cast(
                BatchFeature,
                cast("Callable[..., object]", self.processor)(
                    text=[token],
                    return_tensors="pt",
                    return_text_replacement_offsets=True,
                    add_special_tokens=False,
                    **{ARGUMENTS[name][0]: [given], **settings},
                ),
            )
        except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
            raise DataError(
                f"{type(self.processor).__name__} cannot prepare this medium of {name}",
                field=name,
                got=f"{tuple(content.tensor.shape)}: {' '.join(str(error).split())[:300]}",
                fix="remove the row, or change how it is decoded (model.media)",
            ) from error
        check_pace(content, found)
        offsets = cast("list[list[Mapping[str, object]]] | None", found.pop("text_replacement_offsets", None))
        written = self._read_back(found) if offsets is None else str(offsets[0][0]["replacement"])
        placeholders = [int(one) for one in found["input_ids"][0] if int(one) in self._held]
        tensors = {key: value for key, value in found.items() if key not in OF_TOKENS and isinstance(value, Tensor)}
        medium = Medium(
            modality=name,
            tensors=tensors,
            cost=len(placeholders),
            extra={"placeholders": tuple(placeholders), TRACKS: tuple(content.tracks)},
        )
        return medium, written

    def _given(self, content: Content) -> tuple[object, dict[str, object]]:
        """What the processor is given for a medium, and the settings beside it."""
        return given_of(content)

    def _read_back(self, found: BatchFeature) -> str:
        """What a processor wrote for the only medium of a text that is nothing else, where it does not say so."""
        ids = [int(one) for one in found["input_ids"][0]]
        text = cast(str, self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) != ids:
            raise ModelError(
                "this processor does not say what it writes for a medium",
                got=type(self.processor).__name__,
                fix="use another family (docs/media.md lists those that were tried)",
            )
        return text

    def rate(self, modality: str) -> float | None:
        """Samples per second that the processor takes; None where it takes any."""
        if modality != "audio":
            return None
        return float(getattr(self.processor._audio_processor, "sampling_rate"))  # noqa: B009 - typed as may be None


def _placeholders(library: PreTrainedModel, processor: ProcessorMixin) -> frozenset[int]:
    """The tokens whose embeddings media replace: those the model looks for, else those the processor writes."""
    looked = (getattr(library.config, f"{name}_token_{end}", None) for name in ARGUMENTS for end in ("id", "index"))
    found = frozenset(one for one in looked if isinstance(one, int))
    if found:
        return found
    written = (getattr(processor, f"{name}_token_ids", None) or () for name in ARGUMENTS)
    return frozenset(int(one) for ids in written for one in ids if one is not None)


def skeleton(library: PreTrainedModel) -> PreTrainedModel:
    """A model of the same architecture without weights: its functions, for any process that prepares samples."""
    with torch.device("meta"):
        return type(library)(library.config)


def positions_of(model: PreTrainedModel, ids: Tensor, given: Mapping[str, object]) -> Tensor | None:
    """Positions of a sequence, ``p n``, by the model's own function; None where they are 0, 1, 2, ...

    ids: ``1 n``.
    given: what the processor said of tokens and media.
    """
    settings = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **given}
    found = cast("Callable[[Tensor, dict[str, object]], Tensor]", model._prepare_position_ids_for_generation)(
        ids, settings
    )
    if found.is_floating_point() and bool((found == found.round()).all()):
        found = found.long()
    if found.ndim == 2:
        plain = torch.arange(ids.shape[1])
        return None if bool((found[0] == plain).all()) else found
    return found[:, 0]


def join(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other; where their further dimensions differ, the smaller are filled up with zeros."""
    widest = [max(sizes) for sizes in zip(*(one.shape[1:] for one in tensors), strict=True)]
    return torch.cat([_filled(one, widest) for one in tensors])


def _filled(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    if list(tensor.shape[1:]) == list(sizes):
        return tensor
    whole = tensor.new_zeros((tensor.shape[0], *sizes))
    whole[tuple(slice(size) for size in tensor.shape)] = tensor
    return whole


def _names(model: PreTrainedModel) -> frozenset[str]:
    """Per-token inputs that the family's masks read."""
    makes = getattr(type(model), "create_masks_for_generate", None)
    return frozenset() if makes is None else frozenset(inspect.signature(makes).parameters)
