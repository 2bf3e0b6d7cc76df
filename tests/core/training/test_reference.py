"""The reference: adapters off with frozen copies, or a frozen copy; either way what the policy was at the start."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from modalign.caching.fingerprint import fingerprint
from modalign.draws import Draws
from modalign.errors import ConfigError
from modalign.model import Model
from modalign.testing import toy_batch, toy_model, toy_pairs
from modalign.training.ranks import make_accelerator
from modalign.training.reference import AdaptersOff, FrozenCopy, Policy, Scorer, evaluating, make_scorers

BATCH, DRAWS = toy_batch(toy_pairs(4, blobs=True)), Draws(seed=3)


@contextmanager
def scoring(model: Model, how: str = "auto") -> Iterator[dict[str, Scorer]]:
    policy = Policy(model, make_accelerator("no", model))
    with policy.prepared():
        yield make_scorers(policy, ("policy", "reference"), how)  # pyright: ignore[reportArgumentType]


def mixed() -> Model:
    """An adapter, and an encoder and a head that train whole beside it."""
    model = toy_model(adapter=True, head=True).eval()
    model.encoders.requires_grad_(True)
    return model


def move(model: Model) -> None:
    with torch.no_grad():
        for value in model.trainable().values():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("how", ["adapters_off", "copy"])
def test_the_reference_stays_what_the_policy_was(how: str) -> None:
    model = mixed()
    with scoring(model, how) as scorers:
        before = scorers["policy"].scores(BATCH, DRAWS).detach().logps
        assert scorers["reference"].scores(BATCH, DRAWS).logps.equal(before)
        move(model)
        moved = {name: value.clone() for name, value in model.state_dict().items()}
        assert not scorers["policy"].scores(BATCH, DRAWS).logps.equal(before)
        assert scorers["reference"].scores(BATCH, DRAWS).logps.equal(before)
        # and the policy is as it was before the reference scored
        assert all(value.equal(moved[name]) for name, value in model.state_dict().items())


def test_adapters_off_keeps_copies_of_what_is_no_adapter_only() -> None:
    with scoring(mixed()) as scorers:
        reference = scorers["reference"]
        assert isinstance(reference, AdaptersOff)
        names = set(reference.tensors())
    assert names == {"encoders.blob.project.weight", "encoders.blob.project.bias", "heads.reward.score.weight"}


def test_auto_copies_a_model_without_adapters() -> None:
    with scoring(toy_model()) as scorers:
        assert isinstance(scorers["reference"], FrozenCopy)
    with scoring(toy_model(adapter=True)) as scorers:
        assert isinstance(scorers["reference"], AdaptersOff)


def test_adapters_off_without_adapters_is_refused() -> None:
    with pytest.raises(ConfigError, match="no adapters"), scoring(toy_model(), "adapters_off"):
        pass


def test_a_role_nobody_gives_is_named() -> None:
    policy = Policy(toy_model(), make_accelerator("no", toy_model()))
    with pytest.raises(ConfigError, match="role 'judge'"):
        make_scorers(policy, ("policy", "judge"), "auto")


@pytest.mark.parametrize("how", ["adapters_off", "copy"])
def test_the_gradient_of_the_policy_does_not_feel_the_reference(how: str) -> None:
    model = mixed()
    with scoring(model, how) as scorers:
        scorers["policy"].scores(BATCH, DRAWS).logps.sum().backward()
        alone = {name: value.grad.clone() for name, value in model.trainable().items() if value.grad is not None}
        model.zero_grad()
        graph = scorers["policy"].scores(BATCH, DRAWS).logps.sum()
        assert not scorers["reference"].scores(BATCH, DRAWS).logps.requires_grad
        graph.backward()  # after the copies stood in for what the graph holds
        assert alone
        assert all(value.equal(model.get_parameter(name).grad) for name, value in alone.items())  # pyright: ignore[reportArgumentType]


def test_a_reference_scores_without_dropout_and_leaves_modes_alone() -> None:
    model = mixed().train()
    model.encoders.eval()
    with scoring(model) as scorers:
        first = scorers["reference"].scores(BATCH, DRAWS).logps
        assert first.equal(scorers["reference"].scores(BATCH, DRAWS).logps)
        assert model.training
        assert not model.encoders.training


def test_a_failure_while_the_reference_scores_leaves_the_policy_whole() -> None:
    model = mixed()
    with scoring(model) as scorers:
        move(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        handle = model.decoders["text"].register_forward_hook(_fail)
        with pytest.raises(RuntimeError, match="on purpose"):
            scorers["reference"].scores(BATCH, DRAWS)
        handle.remove()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert model.backbone.adapted  # pyright: ignore[reportOptionalMemberAccess]


def _fail(*_: object) -> None:
    raise RuntimeError("on purpose")


def test_a_policy_scores_only_while_it_is_prepared() -> None:
    policy = Policy(toy_model(), make_accelerator("no", toy_model()))
    with pytest.raises(RuntimeError, match="prepared"):
        policy.scores(BATCH, DRAWS)


def test_a_fingerprint_sees_values_shapes_and_names() -> None:
    weight = torch.arange(6.0)
    known = fingerprint({"a": weight})
    assert known == fingerprint({"a": weight.clone()})
    others = [{"b": weight}, {"a": weight.reshape(2, 3)}, {"a": weight.half()}, {"a": torch.nextafter(weight, -weight)}]
    assert len({known, *map(fingerprint, others)}) == 5
    assert fingerprint({"a": torch.tensor(1.0)}) != fingerprint({"a": torch.tensor(2.0)})
    assert fingerprint({"a": weight.to(torch.bfloat16)}) != fingerprint({"a": weight.to(torch.bfloat16) + 1})


def test_evaluation_mode_ends_where_it_began() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()).eval())
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False, False]


def test_a_reference_that_is_resumed_is_the_one_the_run_began_with(tmp_path: Path) -> None:
    with scoring(mixed()) as scorers:
        kept = {name: value.clone() for name, value in scorers["reference"].tensors().items()}
        before = scorers["reference"].scores(BATCH, DRAWS).logps
    other = mixed()
    move(other)
    with torch.no_grad():
        other.get_parameter("backbone.up.weight").zero_()
    with scoring(other) as scorers:
        assert not scorers["reference"].scores(BATCH, DRAWS).logps.equal(before)
        scorers["reference"].load(kept)
        assert scorers["reference"].scores(BATCH, DRAWS).logps.equal(before)
