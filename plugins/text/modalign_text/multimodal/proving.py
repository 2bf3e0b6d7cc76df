"""The parts of a checkpoint, proven to give together what the whole gives for a row with each medium."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modalign.assembler import Sample, assemble
from modalign.batch import Medium
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.errors import DataError, ModelError
from modalign.roles import Content, Encoded, Encoder
from modalign_text.backbone import CausalLMBackbone
from modalign_text.multimodal.processing import ProcessorWriter
from modalign_text.tokens import Tokeniser

_LOG = logging.getLogger("modalign")

_TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 8e-2, torch.float16: 2e-2}  # of the largest state


@torch.no_grad()
def prove(
    library: PreTrainedModel, backbone: CausalLMBackbone, encoders: Mapping[str, Encoder], writer: ProcessorWriter
) -> None:
    """Raise where the parts, put together, do not give what the whole model gives for a row with each medium."""
    for name, encoder in encoders.items():
        part, medium = tried(writer, name, encoder.rate)
        one = _row(part, writer)
        wanted = _states(library, one, writer)
        batch = assemble([_lone(one)], share=False)
        found = backbone(batch.to(backbone_device(backbone)), {part.digest: encoder([medium])[0]})
        error = float((found - wanted).abs().amax() / wanted.abs().amax())
        if not error <= _TOLERANCE.get(backbone.dtype, 1e-3):
            raise ModelError(
                f"this family cannot be taken apart: with {name} its parts give other states than the whole",
                got=f"{type(library).__name__}, error {error:.1e} of the largest state",
                fix="use another family (docs/media.md lists those that were tried), and please tell us",
            )
    _LOG.info("the towers for %s give what the whole model gives", ", ".join(encoders) or "nothing")


def tried(writer: ProcessorWriter, name: str, rate: float | None) -> tuple[Part, Medium]:
    """A medium of noise, as the processor prepares it."""
    part = Part(modality=name, value=torch.zeros(1))
    try:
        return part, writer.try_out(part, _sample(name, rate))[0]
    except DataError as error:
        raise ModelError(
            f"the processor of this checkpoint cannot prepare {name}",
            got=error.got,
            fix="run `modalign doctor`; if all is well there, this family is not supported yet",
        ) from error


def backbone_device(backbone: CausalLMBackbone) -> torch.device:
    """Where its weights are."""
    return next(backbone.parameters()).device


def _sample(modality: str, rate: float | None) -> Content:
    """A medium of noise, as small as any processor takes."""
    made = torch.Generator().manual_seed(0)
    match modality:
        case "audio":
            assert rate is not None
            return Content(modality=modality, tensor=0.1 * torch.randn(1, int(rate), generator=made), rate=rate)
        case "video":
            frames = torch.randint(0, 256, (4, 3, 64, 64), generator=made, dtype=torch.uint8)
            return Content(modality=modality, tensor=frames, rate=2.0)
        case _:
            return Content(
                modality=modality, tensor=torch.randint(0, 256, (3, 64, 64), generator=made, dtype=torch.uint8)
            )


def _row(part: Part, writer: ProcessorWriter) -> Encoded:
    tokeniser = Tokeniser(writer.tokenizer)
    expansion = writer.expand(f"a b {writer.placeholder(part.modality)} c d", [part])
    tokens = tokeniser.read(expansion.text)
    media = {part.digest: writer.medium(part)}
    one = Encoded(tokens=tokens.ids, prompt=len(tokens.ids), slots=writer.slots(tokens, expansion), media=media)
    return writer.finish(one, {part.modality: [part.digest]})


def _lone(one: Encoded) -> Sample:
    said = Response(messages=(Message(role="assistant", parts=()),))
    return Sample(comparison=Comparison.unpaired((), said), encoded=(one,), own=1)


def _states(library: PreTrainedModel, one: Encoded, writer: ProcessorWriter) -> Tensor:
    """States ``1 n d`` of the model as transformers runs it."""
    device = next(library.parameters()).device
    states: list[Tensor] = []
    hook = library.get_decoder().register_forward_hook(lambda *found: states.append(found[-1].last_hidden_state))
    try:
        library(**writer.arguments(one, device, library))
    finally:
        hook.remove()
    return states[0]
