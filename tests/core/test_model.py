"""The model, its layout and its scores, on the toy double: words and blobs in one response."""

from dataclasses import replace

import pytest
import torch

from modalign.comparison import Comparison
from modalign.draws import Draws
from modalign.layout import Layout, Span
from modalign.objectives.dpo import DPO
from modalign.testing import ask, say, toy_batch, toy_model, toy_pairs


@pytest.mark.parametrize("blobs", [False, True])
def test_a_shared_trunk_scores_like_separate_rows(blobs: bool) -> None:
    model, pairs = toy_model().eval(), toy_pairs(5, blobs=blobs)
    shared = model(toy_batch(pairs), Draws(count=2))
    apart = model(toy_batch(pairs, share=False), Draws(count=2))
    torch.testing.assert_close(shared.logps, apart.logps, rtol=1e-5, atol=1e-5)
    for name, units in shared.units.items():
        torch.testing.assert_close(units.values, apart.units[name].values, rtol=1e-5, atol=1e-5)


def test_gradients_of_a_shared_trunk_equal_those_of_separate_rows() -> None:
    gradients = []
    for share in (True, False):
        model = toy_model().eval()
        model(toy_batch(toy_pairs(4, blobs=True), share=share), Draws()).logps.square().sum().backward()
        gradients.append([value.grad for value in model.parameters()])
    for shared, apart in zip(*gradients, strict=True):
        assert (shared is None) == (apart is None)
        if shared is not None and apart is not None:
            torch.testing.assert_close(shared, apart, rtol=1e-4, atol=1e-5)


def test_a_plain_causal_mask_over_the_tree_would_be_wrong() -> None:
    model, batch = toy_model().eval(), toy_batch(toy_pairs(3))
    flat = Layout(
        tuple(Span(row=row, start=0, stop=batch.layout.width) for row in range(batch.layout.rows)),
        rows=batch.layout.rows,
        width=batch.layout.width,
    )
    right, wrong = model(batch, Draws()).logps, model(replace(batch, layout=flat), Draws()).logps
    assert (right - wrong).abs().max() > 1e-2


def test_two_media_of_one_response_add_up_to_its_log_likelihood() -> None:
    model, pairs = toy_model().eval(), toy_pairs(2, blobs=True)
    scores = model(toy_batch(pairs), Draws(count=3))
    assert scores.kinds == {"token", "draw"}
    by_hand = torch.zeros(4, dtype=torch.float64)
    for units in scores.units.values():
        for value, segment in zip(units.values.double(), units.segment, strict=True):
            by_hand[scores.response[segment]] += value / (3 if units.kind == "draw" else 1)
    torch.testing.assert_close(scores.logps, by_hand)


def test_chosen_and_rejected_share_their_draws_and_epochs_do_not() -> None:
    batch = toy_batch(toy_pairs(1, blobs=True))
    chosen, rejected = [segment.key for segment in batch.segments if segment.modality == "blob"]
    assert chosen == rejected
    first, again = Draws(seed=3, epoch=0).noise(chosen, 0, (4,)), Draws(seed=3, epoch=0).noise(rejected, 0, (4,))
    assert first.equal(again)
    assert not first.equal(Draws(seed=3, epoch=1).noise(chosen, 0, (4,)))
    assert not first.equal(Draws(seed=3, epoch=0).noise(chosen, 1, (4,)))


def test_a_target_medium_does_not_leak_into_its_own_condition() -> None:
    model = toy_model().eval()
    blob, other = torch.zeros(4), torch.ones(4)
    before = toy_batch([replace(toy_pairs(1)[0], responses=(say("a", blob, "b"), say("c")))])
    after = toy_batch([replace(toy_pairs(1)[0], responses=(say("a", other, "b"), say("c")))])
    condition = next(segment.condition for segment in before.segments if segment.modality == "blob")
    assert condition is not None
    span = before.layout.spans[condition]
    states = []
    for batch in (before, after):
        assert model.backbone is not None
        embeddings = {digest: model.encoders["blob"]([medium])[0] for digest, medium in batch.media.items()}
        states.append(model.backbone(batch, embeddings))
    assert states[0][span.row, span.start : span.stop].equal(states[1][span.row, span.start : span.stop])
    assert not states[0].equal(states[1])  # what follows the medium does see it


def test_a_medium_seen_by_both_responses_is_encoded_once() -> None:
    model = toy_model().eval()
    pair = replace(toy_pairs(1)[0], prompt=ask("look", torch.ones(4)))
    model(toy_batch([pair]), Draws())
    assert model.encoders["blob"].passes == 1


def test_equal_models_give_log_two_to_the_last_digit() -> None:
    scores = toy_model().eval()(toy_batch(toy_pairs(3, blobs=True)), Draws())
    loss = DPO()({"policy": scores, "reference": scores.detach()}, toy_batch(toy_pairs(3, blobs=True)).targets)
    # -log sigmoid(0) = log 2
    assert loss.mean.item() == pytest.approx(0.6931471805599453, abs=1e-15)


def test_segments_of_weight_zero_are_seen_and_not_scored() -> None:
    batch = toy_batch(toy_pairs(1, blobs=True))
    model = toy_model().eval()
    silent = replace(
        batch, segments=tuple(replace(one, weight=0.0 if one.modality == "blob" else 1.0) for one in batch.segments)
    )
    all_units, words = model(batch, Draws()), model(silent, Draws())
    blobs = all_units.segments[[number for number, one in enumerate(batch.segments) if one.modality == "blob"]]
    torch.testing.assert_close(all_units.logps - words.logps, blobs)


def test_the_order_of_comparisons_does_not_matter() -> None:
    model, pairs = toy_model().eval(), toy_pairs(4, blobs=True)
    forward, backward = model(toy_batch(pairs), Draws()).logps, model(toy_batch(pairs[::-1]), Draws()).logps
    torch.testing.assert_close(forward.reshape(4, 2), backward.reshape(4, 2).flip(0), rtol=1e-6, atol=1e-6)


def test_a_span_must_follow_its_parent() -> None:
    with pytest.raises(ValueError, match="must follow its parent"):
        Layout((Span(row=0, start=0, stop=2, parent=1), Span(row=0, start=2, stop=3)), rows=1, width=3)


def test_comparisons_in_memory_have_draws_of_their_own() -> None:
    blob = torch.ones(4)
    pairs = [Comparison.pair(ask(word), say(blob), say(-blob)) for word in ("one", "another")]
    keys = {segment.key.comparison for segment in toy_batch(pairs).segments}
    assert keys == {pair.key for pair in pairs}
    assert len(keys) == 2
