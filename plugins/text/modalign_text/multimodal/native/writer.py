"""Pictures in the texts of a checkpoint that draws: read where they are shown, scored where the model draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from transformers import PreTrainedModel, ProcessorMixin

from modalign.batch import Medium, own
from modalign.content import Part
from modalign.errors import ModelError
from modalign.roles import Content, EncodedSegment, MediaSettings
from modalign_text.multimodal.drawing import Drawing, Seen
from modalign_text.multimodal.native.options import PictureOptions
from modalign_text.multimodal.native.pictures import Pictures
from modalign_text.multimodal.processing import ProcessorWriter

_AHEAD = "ahead"  #: of a medium's `extra`: tokens of its text before the first that stands for a code


class NativeWriter(ProcessorWriter, Drawing):
    """Media as a checkpoint's processor prepares and writes them; pictures of responses are drawn by the model.

    pictures: how it draws.
    options: what a config says of them.
    """

    def __init__(
        self,
        library: PreTrainedModel,
        processor: ProcessorMixin,
        settings: Mapping[str, MediaSettings],
        pictures: Pictures,
        options: PictureOptions,
    ) -> None:
        super().__init__(library, processor, settings)
        self.pictures, self.options = pictures, options
        self.makes = frozenset({"image"}) & self.takes
        self.openers = {pictures.begin: "image"}

    @property
    def template(self) -> str | None:
        own = self.tokenizer.chat_template
        return self.pictures.template(super().template or (own if isinstance(own, str) else None))

    def drawn(self, part: Part) -> tuple[EncodedSegment, Mapping[str, Medium]]:
        medium, pictures = self.medium(part), self.pictures
        start = cast(int, medium.extra[_AHEAD])
        codes = pictures.places(pictures.grid(medium))
        if len(codes) != medium.cost:
            raise ModelError(
                "this processor writes a picture in another number of tokens than its VQ model gives codes",
                got=f"{medium.cost} tokens, {len(codes)} codes",
                fix="set the processor's `num_image_tokens` or `image_seq_length` to the checkpoint's own",
            )
        key = self.key(part)
        segment = EncodedSegment(
            modality="image",
            decoder="image",
            kind="token",
            start=start,
            stop=start + len(codes),
            codes=codes,
            digest=key,
            weight=self.options.image_weight,
        )
        return segment, {key: self._as_drawn(medium)}

    def opening(self, part: Part) -> int:
        return 1

    def key(self, part: Part) -> str:
        """What a picture that the model draws is known by: in a row it may be shown too, and be embedded otherwise."""
        return f"{part.digest}.drawn" if self.pictures.apart else part.digest

    @property
    def never(self) -> frozenset[int]:
        return self.pictures.never

    def ahead(self, modality: str) -> Sequence[int]:
        return self.pictures.ahead(self.pictures.drawn())

    def seen(self, part: Part) -> Seen:
        count = len(self.pictures.places(self.pictures.drawn()))
        medium = self._as_drawn(Medium(modality="image", tensors={}, cost=count))
        tokens = (self.pictures.stands,) * count
        return Seen(tokens=tokens, key=self.key(part), medium=medium, behind=self.pictures.end)

    def _as_drawn(self, medium: Medium) -> Medium:
        return replace(medium, modality=own("image")) if self.pictures.apart else medium

    def _given(self, content: Content) -> tuple[object, dict[str, object]]:
        given, settings = super()._given(content)
        return (content.tensor.numpy() if self.pictures.arrays else given), settings

    def _process(self, content: Content) -> tuple[Medium, str]:
        medium, written = super()._process(content)
        ids = cast("list[int]", self.tokenizer(written, add_special_tokens=False)["input_ids"])
        first = next(at for at, token in enumerate(ids) if self.holds(token))
        return replace(medium, extra={**medium.extra, _AHEAD: first}), written
