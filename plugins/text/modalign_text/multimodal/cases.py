"""Comparisons with media, and what transformers itself makes of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

import modalign
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.model import Model
from modalign.roles import Encoded
from modalign_text.multimodal.assembly import MultimodalAssembly
from modalign_text.multimodal.testing import MULTIMODAL, tiny_multimodal

#: what each family reads, as its processor and transformers say
READS = {
    "llava": ("image",),
    "gemma3": ("image",),
    "smolvlm": ("image", "video"),
    "qwen2_5_vl": ("image", "video"),
    "qwen2_audio": ("audio",),
    "qwen2_5_omni_thinker": ("audio", "image", "video"),
    "qwen3_omni_moe_thinker": ("audio", "image", "video"),
}
CELLS = [(family, modality) for family, modalities in READS.items() for modality in modalities]
assert READS.keys() == MULTIMODAL.keys()


_SCALES = {"qwen3_5": 8.0, "smolvlm": 6.0}  # a medium shows less in a linear attention, and in a few tokens of many


def loaded(folder: Path, family: str, **settings: object) -> Model:
    """A tiny model of a family whose matrices are large enough for media to show."""
    place = folder / family
    if not place.is_dir():
        tiny_multimodal(place, family, scale=_SCALES.get(family, 4.0))
    return modalign.load(place, **settings)


def medium(modality: str, seed: int = 0) -> Part:
    """A small medium of noise, in memory."""
    made = torch.Generator().manual_seed(seed)
    match modality:
        case "audio":
            return Part(
                modality=modality,
                value=(0.2 * torch.randn(1, 12_000 + 400 * seed, generator=made)).clamp(-1, 1),
                facts={"sampling_rate": 16_000.0},
            )
        case "video":
            return Part(modality=modality, value=torch.rand(4, 3, 40, 40, generator=made), facts={"fps": 2.0})
        case _:
            return Part(modality=modality, value=torch.rand(3, 40, 48, generator=made))


def words(text: str) -> Part:
    """Words."""
    return Part(modality="text", value=text)


def message(role: str, *parts: Part | str) -> Message:
    """A message of words and media."""
    return Message(role=role, parts=tuple(words(part) if isinstance(part, str) else part for part in parts))


def answer(*parts: Part | str) -> Response:
    """A response of one assistant message."""
    return Response(messages=(message("assistant", *parts),))


def in_prompt(modality: str, seed: int = 0) -> Comparison:
    """A pair whose prompt shows a medium between words."""
    prompt = [message("user", "look: ", medium(modality, seed), " what is it?")]
    return Comparison.pair(prompt, answer("a dog, I think"), answer("no idea"))


def in_history(modality: str) -> Comparison:
    """A pair with a medium in an earlier turn and another one in the last."""
    prompt = [
        message("system", "be brief"),
        message("user", medium(modality, 1), "and this?"),
        message("assistant", "a cat"),
        message("user", "and ", medium(modality, 2), "that?"),
    ]
    return Comparison.pair(prompt, answer("a second cat"), answer("a dog"))


def in_responses(modality: str) -> Comparison:
    """A pair whose responses show different media, and say the same words around them."""
    prompt = [message("user", "draw a dog")]
    return Comparison.pair(
        prompt, answer("here: ", medium(modality, 3), " done"), answer("here: ", medium(modality, 4), " done")
    )


PLACES = {"prompt": in_prompt, "history": in_history, "responses": in_responses}


@torch.no_grad()
def whole_logps(model: Model, one: Encoded) -> Iterator[Tensor]:
    """Log-probabilities of each segment's tokens by transformers' own forward pass over the whole checkpoint."""
    assembly = cast(MultimodalAssembly, model.assembly)
    library = assembly.library.eval()
    given = assembly.writer.arguments(one, next(library.parameters()).device, library)
    logits = library(**given).logits[0].double().log_softmax(-1)  # n v
    for segment in one.segments:
        at = torch.arange(segment.start, segment.stop)
        yield logits[at - 1].gather(-1, torch.tensor(one.tokens)[at, None])[:, 0]
