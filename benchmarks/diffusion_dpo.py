"""One step of Diffusion-DPO beside the published recipe with two models: time, memory held, and the same loss.

    python benchmarks/diffusion_dpo.py
    python benchmarks/diffusion_dpo.py --pixels 128 --pairs 4 --rounds 15

A pipeline of Stable Diffusion's classes with random weights and adapters on its network; its autoencoder costs 1.6 of
the network's forward passes, that of Stable Diffusion 1.5 at 512 pixels 1.4. `two models` is written here from the
recipe (Wallace et al., https://arxiv.org/abs/2311.12908, section 5, with the loss of Eq. 14): each step encodes
pictures and prompts, and asks the policy and a frozen copy of the network. `modalign` has its adapters off for the
reference and reads a pair's prompt once; `cached` has latents and conditions on disk, the reference's errors in
memory, and no encoders.

One process, rounds interleaved with a turning order, CPU seconds of the process; ratios are medians of a round's own
ratios. Held are the bytes of all weights a variant keeps. All variants see the same noise and times: the losses of
modalign with caches and without are equal to the last bit, and the recipe's to 1e-5.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

import modalign
from modalign.assembler import assemble, encode
from modalign.batch import Batch
from modalign.caching.features import FeatureCache
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.integrations.diffusers.testing import clip, part, save, seeded
from modalign.model import Model
from modalign.objectives import DPO
from modalign.training.ranks import Ranks, make_accelerator
from modalign.training.reference import REFERENCE, Policy, make_scorers, score_roles
from modalign.training.remembered import Remembered

BETA = 0.01
DRAWS = Draws(seed=1)
Step = Callable[[], float]


def pipeline(folder: Path, pixels: int) -> None:
    """Stable Diffusion's classes, small; its autoencoder halves a side three times, as that of the real one."""
    with seeded(0):
        reader, words = clip(128)
        unet = part(
            "UNet2DConditionModel",
            sample_size=pixels // 8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(64, 128),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=128,
            attention_head_dim=8,
        )
        vae = part(
            "AutoencoderKL",
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=8,
            sample_size=pixels,
        )
        schedule = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        )
        save(
            folder,
            "StableDiffusionPipeline",
            unet=unet,
            vae=vae,
            text_encoder=reader,
            tokenizer=words,
            scheduler=schedule,
            safety_checker=None,
            feature_extractor=None,
            image_encoder=None,
            requires_safety_checker=False,
        )


def pairs(count: int, pixels: int) -> list[Comparison]:
    made = torch.Generator().manual_seed(0)

    def picture() -> Response:
        one = Part(modality="image", value=torch.rand(3, pixels, pixels, generator=made))
        return Response(messages=(Message(role="assistant", parts=(one,)),))

    asked = [Message(role="user", parts=(Part(modality="text", value=f"picture {number}"),)) for number in range(count)]
    return [Comparison.pair([one], picture(), picture()) for one in asked]


def adapted(folder: Path) -> Model:
    """The model with adapters that change something, the same each time."""
    model = modalign.load(str(folder), adapter=AdapterConfig(r=8))
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.trainable().values():
            value.copy_(torch.randn(value.shape, generator=made) * 0.02)
    return model


def ours(model: Model, batch: Batch, stack: ExitStack, cache: Path | None) -> Step:
    """A step as the trainer takes it."""
    ranks = Ranks(make_accelerator("no", model))
    policy = Policy(model, ranks.accelerator)
    scorers, objective = make_scorers(policy, ("policy", "reference"), "adapters_off"), DPO(beta=BETA)
    stack.enter_context(policy.prepared())
    if cache is not None:
        model.memo.cache = FeatureCache(cache)
        scorers[REFERENCE] = Remembered(scorers[REFERENCE], policy)
        decoder: Any = model.decoders["image"]
        decoder.precompute(batch)
        decoder.release()
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=0.0)

    def step() -> float:
        with model.memo.remembering():
            loss = objective(score_roles(scorers, batch, DRAWS), batch.targets)
        (loss.sum / loss.count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.mean.item()

    return step


def recipe(model: Model, folder: Path, batch: Batch, rows: list[Comparison]) -> tuple[Step, list[nn.Module]]:
    """The step of a script with two networks."""
    pipe: Any = StableDiffusionPipeline.from_pretrained(folder)
    decoder: Any = model.decoders["image"]
    policy, reference = decoder.denoiser.network, pipe.unet.requires_grad_(False)
    alphas = pipe.scheduler.alphas_cumprod.double()
    pixels = torch.stack([_pixels(row.chosen) for row in rows] + [_pixels(row.rejected) for row in rows]) * 2 - 1
    words = [str(next(iter(row.prompt[0].parts)).value) for row in rows]
    keys = [segment.key for segment in batch.segments][::2]
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=0.0)

    def errors(network: nn.Module, noisy: Tensor, times: Tensor, states: Tensor, noise: Tensor) -> Tensor:
        found = network(noisy, times, encoder_hidden_states=states, return_dict=False)[0]
        return (found - noise).square().flatten(1).mean(1)

    def step() -> float:
        with torch.no_grad():
            latents = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
            read = pipe.tokenizer(words * 2, padding="max_length", truncation=True, return_tensors="pt")
            states = pipe.text_encoder(read.input_ids)[0]
        times = (DRAWS.quantiles([(key, 0) for key in keys]) * len(alphas)).floor().long().repeat(2)
        noise = torch.stack([DRAWS.noise(key, 0, tuple(latents.shape[1:])) for key in keys]).repeat(2, 1, 1, 1)
        share = alphas[times].reshape(-1, 1, 1, 1)
        noisy = share.sqrt().float() * latents + (1 - share).sqrt().float() * noise
        with torch.no_grad():
            before = errors(reference, noisy, times, states, noise)
        now = errors(policy, noisy, times, states, noise)
        chosen, rejected = (now - before).chunk(2)
        scale = BETA * latents[0].numel()  # of means over dimensions
        loss = -nn.functional.logsigmoid(-0.5 * scale * (chosen - rejected)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, [policy, reference, pipe.vae, pipe.text_encoder]


def _pixels(response: Response) -> Tensor:
    value = next(iter(response.parts())).value
    assert isinstance(value, Tensor)
    return (value * 255).round().clamp(0, 255) / 255


def held(modules: Iterable[nn.Module]) -> float:
    """Megabytes of their weights."""
    seen = {id(value): value.numel() * value.element_size() for one in modules for value in one.parameters()}
    return sum(seen.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = pairs(arguments.pairs, arguments.pixels)
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        folder = Path(place) / "pipeline"
        pipeline(folder, arguments.pixels)
        models = {name: adapted(folder) for name in ("two models", "modalign", "modalign, cached")}
        batches: dict[str, Batch] = {}
        for name, model in models.items():
            samples = [encode(row, model.assembly.preparer, DPO.needs) for row in rows]
            batches[name] = assemble(samples, share=model.shares)
        first, kept = recipe(models["two models"], folder, batches["two models"], rows)
        steps: dict[str, Step] = {
            "two models": first,
            "modalign": ours(models["modalign"], batches["modalign"], stack, None),
            "modalign, cached": ours(
                models["modalign, cached"], batches["modalign, cached"], stack, Path(place) / "features"
            ),
        }
        sizes = {"two models": held(kept), **{name: held([models[name]]) for name in list(models)[1:]}}
        report(steps, sizes, arguments.rounds)


def report(steps: dict[str, Step], sizes: dict[str, float], rounds: int) -> None:
    """Time the steps in turn and print a table; raises where their losses differ."""
    losses = {name: step() for name, step in steps.items()}
    if losses["modalign"] != losses["modalign, cached"]:
        raise AssertionError(losses)
    if abs(losses["two models"] / losses["modalign"] - 1) > 1e-5:
        raise AssertionError(losses)
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            steps[name]()
            if number:  # the first round warms up
                times[name].append(time.process_time() - start)
    print(f"{'':<20}{'loss':>12}{'ms':>9}{'x two models':>14}{'x modalign':>12}{'weights, MB':>13}")
    for name, own in times.items():
        ratios = [
            statistics.median(other / mine for other, mine in zip(times[base], own, strict=True)) for base in names[:2]
        ]
        print(
            f"{name:<20}{losses[name]:>12.7f}{statistics.median(own) * 1e3:>9.0f}"
            f"{ratios[0]:>14.2f}{ratios[1]:>12.2f}{sizes[name]:>13.1f}"
        )


if __name__ == "__main__":
    main()
