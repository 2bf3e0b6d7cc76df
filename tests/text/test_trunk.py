"""A prompt computed once gives the numbers of separate rows, on every family, in both ways; a leak would show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.assembler import Sample, assemble
from modalign.batch import Batch, Targets
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.errors import ModelError
from modalign.layout import Layout, Span
from modalign.model import Model
from modalign.objectives.base import Loss
from modalign.objectives.dpo import DPO
from modalign.roles import Assembly, Decoder, Encoded, EncodedSegment
from modalign.scores import Scores, Units
from modalign_text import attention
from modalign_text.backbone import CausalLMBackbone, Sharing
from modalign_text.loader import recompute
from modalign_text.testing import WINDOW, tiny_causal_lm

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text", "phi3")
WAYS: tuple[Sharing, ...] = ("split", "mask")
# prompts are 3 to 5 windows long, nothing is a multiple of anything, and no two rows are alike
SHAPES = ((31, (7, 11)), (37, (9, 3)), (25, (1, 2)))


class NaiveHead(Decoder):
    """The language head as a textbook writes it: all logits, all probabilities, one of them."""

    modality = "text"
    kind = "token"

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        assert states is not None
        units = batch.units["text"]
        logps = torch.log_softmax(self.head(states), dim=-1)  # r n v
        return Units(kind="token", values=logps[units.row, units.index, units.token], segment=units.segment)


def a_model(family: str, way: Sharing = "off") -> Model:
    library = tiny_causal_lm(family, scale=4.0)
    backbone = CausalLMBackbone(library)
    backbone.share(way, "test")
    head = cast(nn.Module, library.get_output_embeddings())
    return Model(assembly=cast(Assembly, None), backbone=backbone, decoders={"text": NaiveHead(head)}).train()


def samples() -> list[Sample]:
    generator = torch.Generator().manual_seed(1)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 256, (count,), generator=generator).tolist())

    found: list[Sample] = []
    for number, (prompt, lengths) in enumerate(SHAPES):
        trunk = draw(prompt)
        encoded = tuple(
            Encoded(
                tokens=trunk + draw(length),
                prompt=prompt,
                segments=(
                    EncodedSegment(modality="text", decoder="text", kind="token", start=prompt, stop=prompt + length),
                ),
            )
            for length in lengths
        )
        words = Message(role="user", parts=(Part(modality="text", value=str(number)),))
        response = Response(messages=(words,))
        comparison = Comparison.pair([words], response, response)
        found.append(Sample(comparison=replace(comparison, id=str(number)), encoded=encoded, own=len(lengths)))
    return found


def run(model: Model, batch: Batch) -> tuple[Scores, Loss, dict[str, Tensor]]:
    scores = model(batch, Draws())
    reference = {"policy": scores, "reference": constant(scores)}
    loss = DPO(beta=0.5)(reference, batch.targets)
    model.zero_grad()
    loss.mean.backward()
    return scores, loss, {name: cast(Tensor, one.grad).clone() for name, one in model.named_parameters()}


def constant(scores: Scores) -> Scores:
    """A reference whose log-probabilities are all -6, so that the margin and its gradient are not zero."""
    units = {name: replace(one, values=torch.full_like(one.values, -6.0)) for name, one in scores.units.items()}
    return replace(scores, units=units)


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def gradient_distance(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    largest = max(float(one.abs().max()) for one in expected.values())
    return max(float((found[name] - one).abs().max()) for name, one in expected.items()) / largest


@pytest.fixture(scope="module", params=FAMILIES)
def separate(request: pytest.FixtureRequest) -> tuple[str, Scores, Loss, dict[str, Tensor]]:
    """What each response gives in a row of its own, one row at a time: no padding, masks left to the model."""
    family = cast(str, request.param)
    return family, *run(a_model(family), assemble(samples(), share=False))


@pytest.mark.parametrize("way", WAYS)
def test_a_shared_trunk_equals_separate_rows(
    separate: tuple[str, Scores, Loss, dict[str, Tensor]], way: Sharing
) -> None:
    family, scores, loss, gradient = separate
    batch = assemble(samples(), share=True)
    assert batch.tokens.shape[0] == len(SHAPES)
    assert not batch.layout.plain
    found_scores, found_loss, found_gradient = run(a_model(family, way), batch)
    assert distance(found_scores.units["text"].values, scores.units["text"].values) <= 1e-5
    assert distance(found_scores.logps, scores.logps) <= 1e-5
    assert found_loss.mean.item() == pytest.approx(loss.mean.item(), rel=1e-5)
    assert gradient_distance(found_gradient, gradient) <= 1e-5


def test_rows_padded_together_equal_rows_alone(separate: tuple[str, Scores, Loss, dict[str, Tensor]]) -> None:
    family, scores, _, _ = separate
    model = a_model(family)
    rows = iter(scores.units["text"].values.split([length for _, lengths in SHAPES for length in lengths]))
    with torch.no_grad():
        for sample in samples():
            for encoded in sample.encoded:
                alone = assemble([replace(sample, encoded=(encoded,), own=1)], share=False)
                found = model(alone, Draws()).units["text"].values
                assert distance(next(rows), found) <= 1e-5


def test_a_plainly_causal_mask_fails_by_a_wide_margin(
    separate: tuple[str, Scores, Loss, dict[str, Tensor]],
) -> None:
    family, scores, _, gradient = separate
    model = a_model(family, "mask")
    backbone = cast(CausalLMBackbone, model.backbone)
    honest = Layout.mask
    batch = assemble(samples(), share=True)
    with pytest.MonkeyPatch.context() as patch:

        def leaky(layout: Layout, own: Tensor | None = None) -> Tensor:
            within = torch.ones(layout.width, layout.width, dtype=torch.bool).tril()
            return honest(layout, own) | (within & layout.real[:, None])

        patch.setattr(Layout, "mask", leaky)
        found, _, found_gradient = run(model, batch)
    assert backbone.sharing == "mask"
    assert distance(found.units["text"].values, scores.units["text"].values) > 1e-2  # 1000 times what is allowed
    assert gradient_distance(found_gradient, gradient) > 1e-2


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_a_lost_window_fails_by_a_wide_margin(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert min(prompt for prompt, _ in SHAPES) > 3 * WINDOW
    batch = assemble(samples(), share=True)
    with torch.no_grad():
        right = a_model(family, "split")(batch, Draws()).units["text"].values
        monkeypatch.setattr(attention, "_sees", lambda own, row, piece, keys, device: attention_without_window(piece))
        wrong = a_model(family, "split")(batch, Draws()).units["text"].values
    assert distance(wrong, right) > 1e-2


def attention_without_window(piece: attention.Piece) -> Tensor | None:
    start, stop = piece.span.offset, piece.span.offset + len(piece.span)
    return None if start == 0 else torch.ones(1, 1, stop - start, stop, dtype=torch.bool).tril(start)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_gradient_checkpointing_changes_nothing(family: str, way: Sharing) -> None:
    batch = assemble(samples(), share=True)
    _, loss, gradient = run(a_model(family, way), batch)
    model = a_model(family, way)
    backbone = cast(CausalLMBackbone, model.backbone)
    layers = cast(nn.ModuleList, backbone.decoder.layers)
    recompute(cast(PreTrainedModel, backbone.decoder))
    counted = count_calls(layers[0])
    _, found_loss, found_gradient = run(model, batch)
    assert len(counted) == 2  # once forward, once recomputed
    assert found_loss.mean.item() == loss.mean.item()
    assert gradient_distance(found_gradient, gradient) <= 1e-7


def count_calls(layer: nn.Module) -> list[int]:
    calls: list[int] = []
    inner = cast(nn.Module, layer.self_attn)
    inner.register_forward_pre_hook(lambda module, args: calls.append(1))
    return calls


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_trees_of_any_depth_equal_their_paths(family: str, way: Sharing) -> None:
    # row 0: a trunk, two turns that continue it, a leaf between them that no one sees, and an answer to each turn
    spans = (
        Span(row=0, start=0, stop=13),
        Span(row=0, start=13, stop=22, parent=0, offset=13),
        Span(row=0, start=22, stop=24, parent=1, offset=22),  # the leaf: query positions
        Span(row=0, start=24, stop=31, parent=1, offset=22),
        Span(row=0, start=31, stop=36, parent=0, offset=13),
        Span(row=0, start=36, stop=37, parent=4, offset=18),
        Span(row=1, start=0, stop=3),  # a row of branches without a trunk, after a gap
        Span(row=1, start=5, stop=16),
    )
    layout = Layout(spans, rows=2, width=39)
    tokens = torch.randint(0, 256, (2, 39), generator=torch.Generator().manual_seed(3))
    backbone = cast(CausalLMBackbone, a_model(family).backbone)
    with torch.no_grad():
        alone = [
            backbone.run(input_ids=tokens[span.row, layout.tokens(number)][None])[0]
            for number, span in enumerate(spans)
        ]
        backbone.share(way, "test")
        states = backbone(a_batch(tokens, layout), {})
    for number, span in enumerate(spans):
        assert distance(states[span.row, layout.tokens(number)], alone[number]) <= 1e-5


def a_batch(tokens: Tensor, layout: Layout) -> Batch:
    empty = torch.zeros(0, dtype=torch.long)
    targets = Targets(pairs=empty.reshape(0, 2), own=empty, weights=empty.double(), group=empty)
    return Batch(tokens=tokens, layout=layout, segments=(), units={}, ends=empty.reshape(0, 2), targets=targets)


def test_what_one_branch_says_never_reaches_another() -> None:
    batch = assemble(samples(), share=True)
    first = batch.layout.spans[1]
    changed = batch.tokens.clone()
    changed[first.row, first.start : first.stop] += 1
    backbone = cast(CausalLMBackbone, a_model("qwen3", "split").backbone)
    with torch.no_grad():
        before, after = backbone(batch, {}), backbone(replace(batch, tokens=changed), {})
    touched = (before != after).any(-1) & batch.layout.real
    assert set(touched.nonzero().unbind(-1)[1].tolist()) == set(range(first.start, first.stop))


def test_split_attention_makes_no_mask_over_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...] | None] = []
    real = attention.sdpa

    def spy(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: object) -> object:
        seen.append(None if mask is None else tuple(mask.shape))
        return real(module, q, k, v, mask, **kwargs)

    monkeypatch.setattr(attention, "sdpa", spy)
    batch = assemble(samples(), share=True)
    cast(CausalLMBackbone, a_model("llama", "split").backbone)(batch, {})
    branches = [(1, 1, length, prompt + length) for prompt, lengths in SHAPES for length in lengths]
    assert [shape for shape in seen if shape is not None] == branches * 2  # 2 layers
    assert seen.count(None) == len(SHAPES) * 2


def test_a_backbone_that_does_not_share_refuses_a_tree() -> None:
    with pytest.raises(ModelError, match="share=False"):
        a_model("llama")(assemble(samples(), share=True), Draws())


def test_soft_caps_in_attention_are_refused_by_split_and_honoured_by_a_mask() -> None:
    library = tiny_causal_lm("gemma2", scale=4.0)
    backbone = CausalLMBackbone(library)
    head = NaiveHead(cast(nn.Module, library.get_output_embeddings()))
    model = Model(assembly=cast(Assembly, None), backbone=backbone, decoders={"text": head})
    batch = assemble(samples(), share=True)
    backbone.share("split", "test")
    with pytest.raises(ModelError, match="softcap"):
        backbone(batch, {})
    backbone.share("mask", "test")
    with torch.no_grad():
        shared = model(batch, Draws()).units["text"].values
        backbone.share("off", "test")
        alone = model(assemble(samples(), share=False), Draws()).units["text"].values
    assert distance(shared, alone) <= 1e-5
