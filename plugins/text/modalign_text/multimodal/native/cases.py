"""Comparisons with pictures that are shown and pictures that are drawn, and what transformers itself makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import modalign
from modalign.comparison import Comparison
from modalign.content import Part
from modalign.model import Model
from modalign.roles import GIVEN, Encoded
from modalign_text.multimodal.assembly import MultimodalAssembly
from modalign_text.multimodal.cases import answer, message
from modalign_text.multimodal.native.testing import NATIVE
from modalign_text.multimodal.testing import tiny_multimodal

FAMILIES = tuple(NATIVE)
SMALL = {"emu3": {"options": {"image_area": 24 * 24}}}  #: settings by which a family makes tiny pictures


def loaded(folder: Path, family: str, **settings: object) -> Model:
    """A tiny model of a family, whose matrices are large enough for pictures to show."""
    place = folder / family
    if not place.is_dir():
        tiny_multimodal(place, family, scale=4.0)
    return modalign.load(place, **{**SMALL.get(family, {}), **settings}).eval()


def picture(seed: int = 0) -> Part:
    """Large patches of colour: pictures whose codes differ."""
    made = torch.Generator().manual_seed(seed)
    patches = torch.rand(1, 3, 4, 4, generator=made)
    return Part(modality="image", value=torch.nn.functional.interpolate(patches, size=(24, 32))[0].contiguous())


def reads(name: str = "reads") -> Comparison:
    """A picture in the prompt, words in the responses: understanding."""
    pair = Comparison.pair([message("user", "look: ", picture(1), " what?")], answer("a dog"), answer("no idea"))
    return replace(pair, id=name)


def draws(name: str = "draws") -> Comparison:
    """Words in the prompt, pictures in the responses: generation."""
    return replace(Comparison.pair([message("user", "a dog")], answer(picture(2)), answer(picture(3))), id=name)


def both(name: str = "both") -> Comparison:
    """The same picture shown and drawn, and words around those that are drawn; one response is of words alone."""
    chosen = answer("here: ", picture(1), " and ", picture(4), " done")
    return replace(Comparison.pair([message("user", picture(1), " again")], chosen, answer("no")), id=name)


@torch.no_grad()
def whole(model: Model, one: Encoded) -> tuple[Tensor, Tensor, Tensor]:
    """What transformers makes of a sequence: states ``n d``, logits ``n v`` of words, and the row's token ids ``n``.

    Pictures are codes of transformers' own VQ model, in their tokens' places: as ids where the family has such, else
    embedded as its own sampling embeds them.
    """
    library = cast(Any, cast(MultimodalAssembly, model.assembly).library).eval()
    ids = torch.tensor([one.tokens])
    inputs = library.get_input_embeddings()(ids)
    for slot in one.slots:
        medium = one.media[slot.digest]
        if library.config.model_type == "janus":
            if medium.modality == "image":
                states = library.model.get_image_features(medium.tensors["pixel_values"]).pooler_output
                inputs[:, slot.start : slot.stop] = states
            else:
                codes = library.model.vqmodel.encode(medium.tensors["pixel_values"]).image_tokens
                inputs[:, slot.start : slot.stop] = library.prepare_embeddings_for_image_generation(codes)
        else:
            ids[0, slot.start : slot.stop] = library.model.get_image_tokens(**medium.tensors).flatten()
    given = {"inputs_embeds": inputs} if library.config.model_type == "janus" else {"input_ids": ids}
    caught: list[Tensor] = []
    hook = library.get_decoder().register_forward_hook(lambda *found: caught.append(found[-1].last_hidden_state))
    try:
        logits = library(**given).logits
    finally:
        hook.remove()
    return caught[0][0], logits[0].double(), ids[0]


@torch.no_grad()
def oracle(model: Model, one: Encoded) -> dict[str, Tensor]:
    """Log-probabilities of every scored token by transformers' own modules, in float64, by decoder."""
    library = cast(Any, cast(MultimodalAssembly, model.assembly).library)
    states, logits, ids = whole(model, one)
    found: dict[str, list[Tensor]] = {"text": [], "image": []}
    for segment in one.segments:
        for number, at in enumerate(range(segment.start, segment.stop)):
            if segment.decoder == "text":
                found["text"].append(logits[at - 1].log_softmax(-1)[ids[at]])
            elif segment.codes[number] != GIVEN:
                pixels = one.media[cast(str, segment.digest)].tensors
                if library.config.model_type == "janus":
                    code = library.model.vqmodel.encode(pixels["pixel_values"]).image_tokens[number]
                    found["image"].append(library.model.generation_head(states[at - 1]).double().log_softmax(-1)[code])
                else:
                    every = library.model.vocabulary_mapping.image_tokens
                    chances = library.lm_head(states[at - 1]).double()[every].log_softmax(-1)
                    found["image"].append(chances[every.index(int(ids[at]))])
    return {name: torch.stack(values) for name, values in found.items() if values}
