"""DRaFT-K and ReFL: the gradient of a reward reaches a generator through its own sampler, and through no more of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from modalign import load
from modalign.assembler import assemble, encode
from modalign.batch import Batch
from modalign.config import AdapterConfig
from modalign.data import read
from modalign.draws import Draws
from modalign.errors import ConfigError, ModalignError, ModelError, NumericError, ShapeError
from modalign.integrations.painter import PainterDenoiser
from modalign.model import Model
from modalign.objectives import DRaFT, ReFL
from modalign.objectives.reward_gradient import RewardGradient
from modalign.registry import registry
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.world.painter import SHIFT, Painter

STEPS = 4


def brightness(prompts: list[str], media: Tensor) -> Tensor:
    """How light each picture is."""
    assert len(prompts) == len(media)
    return media.flatten(1).mean(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = registry.depiction("image").student(tmp_path_factory.mktemp("painter"))
    assert found is not None
    return found


def painter(folder: Path, **settings: object) -> Model:
    model = load(str(folder), **settings)
    for value in denoiser(model).network.leave.parameters():  # pyright: ignore[reportAttributeAccessIssue]
        torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(0))
    return model


def denoiser(model: Model) -> PainterDenoiser:
    (decoder,) = model.decoders.values()
    return cast(PainterDenoiser, decoder.denoiser)


def batch(model: Model, objective: RewardGradient, rows: int = 3) -> Batch:
    prompts = read("oracle", split="image/prompts", limit=rows)
    return assemble([encode(row, model.assembly.preparer, objective.needs) for row in prompts], share=model.shares)


def gradients(model: Model, objective: RewardGradient, asked: Batch, draws: Draws) -> tuple[float, list[Tensor]]:
    scores = model(asked, draws, objective.backprop())
    loss = objective({"policy": scores}, asked.targets).mean
    values = list(denoiser(model).network.parameters())
    found = torch.autograd.grad(loss, values, allow_unused=True)
    whole = zip(found, values, strict=True)
    return loss.item(), [torch.zeros_like(value) if one is None else one for one, value in whole]


def written_here(model: Model, asked: Batch, draws: Draws, graded: Callable[[int], bool]) -> Tensor:
    """The mean brightness of what an Euler sampler of a few lines makes, in float32."""
    made, network = denoiser(model), cast(Painter, denoiser(model).network)
    rewards: list[Tensor] = []
    for segment in asked.segments:
        assert segment.given is not None
        phrase = made.conditions([asked.media[segment.given]])[0]["phrase"][None]
        sizes = made.canvas.patches(torch.zeros(1, 3, 32, 32)).shape[1], made.canvas.latents
        x = torch.randn(sizes, generator=draws.source(segment.key, 0))[None]
        for step in range(STEPS):
            now, then = ((STEPS - one) / STEPS for one in (step, step + 1))
            now, then = (SHIFT * one / (1 + (SHIFT - 1) * one) for one in (now, then))
            with torch.set_grad_enabled(graded(step)):
                x = x + (then - now) * network(x, torch.tensor([now], dtype=torch.float64), phrase)
        patches = made.codec.decode(x)
        picture = patches.reshape(1, 8, 2, 3, 4, 16).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 32, 32)
        rewards.append(picture.clamp(0, 1).mean())
    return torch.stack(rewards).mean()


@pytest.mark.parametrize("last", [None, 1, 2])
def test_the_gradient_is_that_of_the_last_steps_of_a_sampler(folder: Path, last: int | None) -> None:
    model = painter(folder)
    objective = DRaFT(reward=brightness, num_inference_steps=STEPS, last_steps=last)
    asked, draws = batch(model, objective), Draws(seed=3)
    loss, found = gradients(model, objective, asked, draws)
    reward = written_here(model, asked, draws, lambda step: last is None or step >= STEPS - last)
    assert loss == pytest.approx(-reward.item(), rel=1e-5)
    values = list(denoiser(model).network.parameters())
    expected = torch.autograd.grad(-reward, values, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, rtol=2e-3, atol=1e-7)


def test_steps_before_the_last_keep_no_graph(folder: Path) -> None:
    model = painter(folder)
    kept: dict[object, int] = {}
    for last in (1, 2, None):
        objective = DRaFT(reward=brightness, num_inference_steps=STEPS, last_steps=last)
        asked, saved = batch(model, objective), [0]

        def pack(value: Tensor, saved: list[int] = saved) -> Tensor:
            saved[0] += value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            model(asked, Draws(seed=1), objective.backprop())
        kept[last] = saved[0]
    assert kept[2] == pytest.approx(2 * kept[1], rel=0.1)
    assert kept[None] == pytest.approx(STEPS * kept[1], rel=0.15)


def test_a_leap_is_what_a_step_predicts_as_clean(folder: Path) -> None:
    model = painter(folder)
    objective = ReFL(reward=brightness, num_inference_steps=STEPS, earliest=0.5, latest=0.75)
    assert objective.leaps == range(2, 3)
    asked, draws = batch(model, objective, rows=1), Draws(seed=3)
    scores = model(asked, draws, objective.backprop())
    made, (segment,) = denoiser(model), asked.segments
    assert segment.given is not None
    phrase = made.conditions([asked.media[segment.given]])[0]["phrase"][None]
    x = torch.randn(16, made.canvas.latents, generator=draws.source(segment.key, 0))[None]
    times = [SHIFT * one / (1 + (SHIFT - 1) * one) for one in (1.0, 0.75, 0.5)]
    with torch.no_grad():
        for now, then in ((times[0], times[1]), (times[1], times[2])):
            x = x + (then - now) * cast(Painter, made.network)(x, torch.tensor([now], dtype=torch.float64), phrase)
        time = torch.tensor([times[2]], dtype=torch.float64)
        clean = x - times[2] * cast(Painter, made.network)(x, time, phrase)
        expected = made.canvas.parts(made.codec.decode(clean))[0].value
    assert scores.rewards["made"][0, 0].item() == pytest.approx(cast(Tensor, expected).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        DRaFT(reward=brightness, num_inference_steps=STEPS, last_steps=2),
        ReFL(reward=brightness, num_inference_steps=STEPS, earliest=0.5),
    ],
)
def test_the_reward_rises(folder: Path, tmp_path: Path, objective: RewardGradient) -> None:
    model = painter(folder, adapter=AdapterConfig(r=4))
    result = Trainer(
        model=model,
        objective=objective,
        data=read("oracle", split="image/prompts", limit=16),
        output_dir=tmp_path / "run",
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        quiet=True,
    ).train()
    lines = [line for line in (result.folder / "metrics.jsonl").read_text("utf-8").splitlines() if '"reward"' in line]
    rewards = [float(line.split('"reward": ')[1].split(",")[0]) for line in lines]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.05
    assert all("lora_" in name for name in model.trainable())


def test_pipelines_of_diffusers_are_followed_through_their_own_sampler(tmp_path: Path) -> None:
    from modalign_image.generators.testing import stable_diffusion_3
    from modalign_image.generators.testing_unet import stable_diffusion

    for make in (stable_diffusion_3, stable_diffusion):
        for objective in (
            DRaFT(reward=brightness, num_inference_steps=2),
            ReFL(reward=brightness, num_inference_steps=2, earliest=0.5),
        ):
            place = tmp_path / make.__name__
            where = str(place if place.exists() else make(place))
            model = load(where, adapter=AdapterConfig(r=2), options={"height": 16, "width": 16})
            before = {name: value.detach().clone() for name, value in model.trainable().items()}
            Trainer(
                model=model,
                objective=objective,
                data=read("oracle", split="image/prompts", limit=2),
                output_dir=tmp_path / f"{make.__name__}-{type(objective).__name__}",
                max_steps=2,
                learning_rate=1e-2,
                quiet=True,
            ).train()
            moved = [name for name, value in model.trainable().items() if not value.equal(before[name])]
            assert any("lora_A" in name for name in moved)  # from the second step on, once B is not zero


def _detached(prompts: list[str], media: Tensor) -> Tensor:
    return brightness(prompts, media).detach()


def _whole(prompts: list[str], media: Tensor) -> Tensor:
    return media.mean()


def _broken(prompts: list[str], media: Tensor) -> Tensor:
    return brightness(prompts, media) * float("nan")


@pytest.mark.parametrize(
    ("reward", "error", "says"),
    [
        (_detached, ModelError, "no gradient comes back from this reward"),
        (_whole, ShapeError, "one number for each medium"),
        (_broken, NumericError, "finite"),
        (None, ConfigError, "follows the gradient of a reward"),
        ("nowhere.at_all:reward", ConfigError, "cannot be imported"),
        ("math:pi", ConfigError, "a reward is called"),
    ],
)
def test_rewards_that_cannot_be_followed(
    folder: Path, tmp_path: Path, reward: object, error: type[ModalignError], says: str
) -> None:
    with pytest.raises(error, match=says):
        Trainer(
            model=painter(folder),
            objective=DRaFT(reward=reward, num_inference_steps=2),  # pyright: ignore[reportArgumentType]
            data=read("oracle", split="image/prompts", limit=2),
            output_dir=tmp_path / "run",
            max_steps=1,
            quiet=True,
        ).train()


def test_a_reward_that_cannot_be_had_is_said_before_any_row_is_read(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="follows the gradient of a reward"):
        Trainer(
            model=painter(folder),
            objective=DRaFT(num_inference_steps=2),
            data=read([{"prompt": ""}]),
            output_dir=tmp_path / "run",
            quiet=True,
        )


def test_a_model_of_words_has_no_denoiser(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no gradient passes through what this model writes"):
        Trainer(
            model=toy_model(),
            objective=DRaFT(reward=brightness),
            data=toy_pairs(2),
            output_dir=tmp_path / "run",
            quiet=True,
        )
