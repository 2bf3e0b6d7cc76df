"""How a family draws: its VQ model, and what its format says around the codes of a picture.

n codes of a picture, h w of them in rows, v codes there are, c channels, y x pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, Self, cast, final

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from modalign.batch import Medium
from modalign.caching.memo import Memo
from modalign.content import Part
from modalign.decoders.codes import CODES
from modalign.errors import ModelError, ShapeError
from modalign.frozen import empty
from modalign.roles import GIVEN
from modalign_text.multimodal.keeping import Kept

_NAME: Final = "codes of image"  #: of what a step remembers

#: what Chameleon's processor and tokenizer write: a separator behind what was asked, an end behind what was answered
_CHAMELEON: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else sep_token }}{% endfor %}"
)


class VQ(Protocol):
    """What the VQ models of transformers have in common."""

    def encode(self, pixel_values: Tensor, *sizes: Tensor) -> Any: ...  # noqa: ANN401 - an output class each
    def decode(self, codes: Tensor) -> Tensor: ...


class Pictures(nn.Module, ABC):
    """Pictures of one checkpoint to codes, and back where its VQ model can; frozen, and asked once for each medium.

    library, processor: of the checkpoint. Their VQ model becomes this module's child.

    size: how many codes there are (v).
    begin: the token by which the model says that a picture follows.
    end: those that the format puts behind its codes.
    stands: the token that stands for each code in a text.
    apart: whether pictures that the model draws are embedded otherwise than those it is shown.
    arrays: whether its processor reads arrays and no tensors.
    own: names of the checkpoint's modules that belong to drawing alone.
    mute: why codes cannot become pixels; None where they can.
    facts: what codes depend on beside the weights, for what is kept on disk.
    """

    size: int
    apart: bool = False
    arrays: bool = False
    own: frozenset[str] = frozenset({"vqmodel"})
    mute: str | None = None
    facts: Mapping[str, object] = empty()

    def __init__(self, library: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__()
        self.vq = cast(PreTrainedModel, cast(Any, library).model.vqmodel).requires_grad_(False).eval()
        self.processor = processor
        self._tokens = _Tokens(processor)
        said = cast(Any, processor)
        self.begin = self._tokens(said.image_start_token)
        self.end: tuple[int, ...] = (self._tokens(said.image_end_token),)
        self.stands = self._tokens(said.image_token)
        self._known: Kept[Medium] = Kept()

    def train(self, mode: bool = True) -> Self:
        """A frozen tokeniser answers alike whenever it is asked."""
        return super().train(False)

    @abstractmethod
    def grid(self, medium: Medium) -> tuple[int, int]:
        """Rows and columns of a prepared picture's codes."""

    @abstractmethod
    def drawn(self) -> tuple[int, int]:
        """Rows and columns of the codes of a picture that the model is asked for."""

    def ahead(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """The tokens that the format puts between the opening token and the codes."""
        return ()

    def places(self, grid: tuple[int, int]) -> tuple[int, ...]:
        """For each token that stands for the picture its code's number, or `GIVEN` where the format says it."""
        return tuple(range(grid[0] * grid[1]))

    def template(self, found: str | None) -> str | None:
        """The chat template of the checkpoint, with what its processor writes around conversations.

        found: what the checkpoint has.
        """
        return found

    @property
    def never(self) -> frozenset[int]:
        """Tokens that are given and never said."""
        return frozenset({*self.end, self.stands})

    def codes(self, media: Mapping[str, Medium], memo: Memo | None) -> dict[str, Tensor]:
        """Codes ``n`` of each medium by digest, `GIVEN` where the format says what stands there.

        Each goes through the VQ model alone and once: what is known of this run is remembered, what is in the feature
        cache is read. A picture that the model has made in this process is what it was made of.
        """
        device = next(self.vq.parameters()).device
        found: dict[str, Tensor] = {}
        for digest, medium in media.items():
            known = self._known.get(digest)
            if known is not None and known.cost == medium.cost:
                found[digest] = known.tensors[CODES].to(device)
        fresh = {digest: medium for digest, medium in media.items() if digest not in found}
        for digest, one in self._made(fresh, memo).items() if fresh else ():
            self.keep(digest, one)
            found[digest] = one
        return found

    def _made(self, media: Mapping[str, Medium], memo: Memo | None) -> dict[str, Tensor]:
        if memo is None:
            return {digest: self.run(medium) for digest, medium in media.items()}

        def run(every: list[Medium]) -> list[Tensor]:
            if not self.apart:  # else the pictures that a tower reads are counted
                memo.passes["image"] += len(every)
            return [self.run(medium) for medium in every]

        return cast("dict[str, Tensor]", memo.frozen(_NAME, self.vq, media, run, self.facts))

    def keep(self, digest: str, codes: Tensor) -> None:
        """Remember that a picture is these codes."""
        medium = Medium(modality="image", tensors={CODES: codes.detach().cpu()}, cost=len(codes))
        self._known.keep(digest, medium)

    @torch.no_grad()
    def run(self, medium: Medium) -> Tensor:
        """The codes ``n`` of one medium by the VQ model, in its own precision whatever it is called in."""
        value = next(self.vq.parameters())
        pixels = medium.tensors["pixel_values"].to(value.device, value.dtype)  # 1 c y x
        self.vq.eval()  # a backbone may hold it, and be in training
        with torch.autocast(value.device.type, enabled=False):
            found = self.tokens(pixels, medium)
        if (wanted := medium.cost) != len(found):
            raise ShapeError(f"the processor wrote {wanted} placeholders", got=f"{len(found)} codes of a picture")
        return found

    @abstractmethod
    def tokens(self, pixels: Tensor, medium: Medium) -> Tensor:
        """The codes ``n`` of pixels ``1 c y x``."""

    def check(self) -> None:
        """Raise where codes cannot become pixels."""
        if self.mute is not None:
            raise ModelError(
                "this model has opened a picture, and its codes cannot be made pixels",
                got=self.mute,
                fix="its pictures can be scored and trained on; let it write words alone with max_media=0",
            )

    @torch.no_grad()
    def picture(self, codes: Tensor, grid: tuple[int, int]) -> Part:
        """The picture that codes ``n`` are, `GIVEN` among them."""
        self.check()
        images = cast(Any, self.processor).image_processor
        pixels = self.pixels(codes[codes != GIVEN], grid)[0].float().cpu()  # c y x
        mean, std = (torch.tensor(one)[:, None, None] for one in (images.image_mean, images.image_std))
        value = ((pixels * std + mean) / images.rescale_factor).clamp(0, 255).to(torch.uint8)
        return Part(modality="image", value=value)

    def pixels(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """Normalised pixels ``1 c y x`` of codes ``n``."""
        raise ModelError("this family's VQ model has no decoder", got=type(self.vq).__name__)


class InVocabulary(Pictures):
    """Pictures whose codes are tokens of the language model: one table embeds both, and one head scores both.

    ids: of the tokens that are codes, ``v``, rising; a code is its place among them.
    """

    def __init__(self, library: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__(library, processor)
        mapping = cast(Any, library).model.vocabulary_mapping
        self._mapping = mapping
        self.ids = tuple(int(one) for one in mapping.image_tokens)
        self.size = len(self.ids)
        self.given = self.stands  #: the token where a code is `GIVEN`
        numbers = torch.full((max(self.ids) + 1,), GIVEN)
        numbers[torch.tensor(self.ids)] = torch.arange(self.size)
        self.register_buffer("_numbers", numbers, persistent=False)
        self.register_buffer("_ids", torch.tensor(self.ids), persistent=False)

    @property
    def never(self) -> frozenset[int]:
        return super().never | {*self.ids}

    def token_ids(self, codes: Tensor) -> Tensor:
        """The tokens that codes of any shape are."""
        ids = cast(Tensor, self._ids)[codes.clamp(min=0)]
        return torch.where(codes == GIVEN, self.given, ids)

    def numbered(self, ids: Tensor) -> Tensor:
        """The codes that ids of the language model's tokens are."""
        return cast(Tensor, self._numbers)[ids.long()]


@final
class Emu3Pictures(InVocabulary):
    """Emu3 (https://arxiv.org/abs/2409.18869): size as words, then rows of codes with an end of line behind each.

    ``<|image start|>H*W<|image token|>`` codes and ends of lines ``<|extra_201|><|image end|>``: the model says the
    first token; the size, the ends of lines and what follows are given, as in the authors' own sampling.
    """

    arrays = True

    def __init__(self, library: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__(library, processor)
        said = cast(Any, processor)
        self.given = int(self._mapping.eol_token_id)
        self.end = (self._tokens(said.eof_token), *self.end)
        self._factor = int(said.downsample_ratio)
        self._wrapper = str(said.fake_token_around_image)
        self.ratio, self.area = str(said.ratio), int(said.image_area)

    def grid(self, medium: Medium) -> tuple[int, int]:
        height, width = (int(one) for one in medium.tensors["image_sizes"][0])
        return height // self._factor, width // self._factor

    def drawn(self) -> tuple[int, int]:
        found = cast(Any, self.processor).calculate_generate_size(self.ratio, self.area, self._factor)
        return cast("tuple[int, int]", found)

    def ahead(self, grid: tuple[int, int]) -> tuple[int, ...]:
        return self._tokens.read(f"{grid[0]}*{grid[1]}{self._wrapper}")

    def places(self, grid: tuple[int, int]) -> tuple[int, ...]:
        rows, columns = grid
        each = range(rows * (columns + 1))
        return tuple(GIVEN if at % (columns + 1) == columns else at for at in each)

    def template(self, found: str | None) -> str | None:
        begins = str(cast(Any, self.processor).bos_token)  # the processor puts it there, and no template does
        if found is None or begins in found or "bos_token" in found:
            return found
        return f"{{{{ {begins!r} }}}}{found}"

    @property
    def never(self) -> frozenset[int]:
        return super().never | {self.given, self._tokens(self._wrapper)}

    def tokens(self, pixels: Tensor, medium: Medium) -> Tensor:
        sizes = medium.tensors["image_sizes"].to(pixels.device)
        (codes,) = cast(VQ, self.vq).encode(pixels, sizes).image_tokens  # h w
        return self.numbered(self._mapping.convert_img2bpe(codes)).flatten()

    def pixels(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        table = self._mapping.bpe2img_mapping_tensor.to(codes.device)
        numbers = table[self.token_ids(codes)]  # as the VQ model has them
        return cast(VQ, self.vq).decode(rearrange(numbers.long(), "(h w) -> 1 h w", h=grid[0]))


@final
class ChameleonPictures(InVocabulary):
    """Chameleon (https://arxiv.org/abs/2405.09818): a square of codes; transformers has no decoder for them."""

    mute = "ChameleonVQVAE of transformers encodes pictures and has no decoder"

    def template(self, found: str | None) -> str | None:
        return _CHAMELEON if found is None else found  # checkpoints have none, and their processor does as this one

    def grid(self, medium: Medium) -> tuple[int, int]:
        return self.drawn()

    def drawn(self) -> tuple[int, int]:
        side = round(int(cast(Any, self.processor).image_seq_length) ** 0.5)
        return side, side

    def tokens(self, pixels: Tensor, medium: Medium) -> Tensor:
        codes = cast(VQ, self.vq).encode(pixels).image_tokens
        return self.numbered(self._mapping.convert_img2bpe(codes)).flatten()


@final
class JanusPictures(Pictures):
    """Janus and Janus-Pro (https://arxiv.org/abs/2501.17811): codes with a table, an aligner and a head of their own.

    A picture that the model is shown goes through its understanding tower; one that it draws is codes.
    """

    apart = True
    own = frozenset({"vqmodel", "generation_embeddings", "generation_aligner", "generation_head"})

    def __init__(self, library: PreTrainedModel, processor: ProcessorMixin) -> None:
        super().__init__(library, processor)
        self.size = int(library.config.vq_config.num_embeddings)

    def grid(self, medium: Medium) -> tuple[int, int]:
        return self.drawn()

    def drawn(self) -> tuple[int, int]:
        side = int(cast(Any, self.vq.config).num_patches)
        return side, side

    def tokens(self, pixels: Tensor, medium: Medium) -> Tensor:
        return cast(VQ, self.vq).encode(pixels).image_tokens.flatten()

    def pixels(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        return cast(VQ, self.vq).decode(codes[None])


@final
class _Tokens:
    """Ids of what a format writes."""

    def __init__(self, processor: ProcessorMixin) -> None:
        self._tokenizer = cast(Any, processor.tokenizer)

    def __call__(self, token: str) -> int:
        return int(self._tokenizer.convert_tokens_to_ids(token))

    def read(self, text: str) -> tuple[int, ...]:
        found: Sequence[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(found)


_FAMILIES: Final[Mapping[str, Callable[[PreTrainedModel, ProcessorMixin], Pictures]]] = {
    "chameleon": ChameleonPictures,
    "emu3": Emu3Pictures,
    "janus": JanusPictures,
}


def pictures_of(library: PreTrainedModel, processor: ProcessorMixin) -> Pictures | None:
    """How a checkpoint draws; None where it does not."""
    kind = _FAMILIES.get(str(library.config.model_type))
    return None if kind is None else kind(library, processor)
