"""The parts of a checkpoint that draws pictures."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from modalign.roles import Encoder
from modalign_text import probe
from modalign_text.backbone import CausalLMBackbone
from modalign_text.multimodal.encoder import TowerEncoder, towers_of
from modalign_text.multimodal.native.encoder import CodeEncoder
from modalign_text.multimodal.native.pictures import InVocabulary, Pictures
from modalign_text.multimodal.native.writer import NativeWriter
from modalign_text.multimodal.proving import prove, tried


def towers_beside(library: PreTrainedModel, pictures: Pictures | None) -> dict[str, nn.Module]:
    """The towers that read media: without what a checkpoint has for drawing.

    pictures: how it draws; None where it does not.
    """
    drawing = frozenset() if pictures is None else pictures.own
    return {name: one for name, one in towers_of(library).items() if name not in drawing}


def drawing(
    library: PreTrainedModel, writer: NativeWriter, sharing: str
) -> tuple[CausalLMBackbone, dict[str, Encoder]]:
    """Backbone and encoders, proven to give what the whole gives; pictures that are shown may be read as codes too."""
    pictures = writer.pictures
    pictures.facts = writer.facts("image")
    backbone = CausalLMBackbone(library)
    _, medium = tried(writer, "image", None)
    if isinstance(pictures, InVocabulary):
        encoder: Encoder = CodeEncoder(library, writer, pictures)
    else:
        encoder = TowerEncoder(library, "image", writer, nn.ModuleDict(towers_beside(library, pictures)))
        encoder.learn(medium)
    probe.decide(backbone, sharing)
    prove(library, backbone, {"image": encoder}, writer)
    return backbone, {"image": encoder}
