"""Teach the model of all modalities that `modalign quickstart` starts from, and pack it into the plugins.

    python benchmarks/teach.py --folder runs/taught           # teach it
    python benchmarks/teach.py --folder runs/taught --pack    # and put it where the plugins ship it

Everything is the oracle world's, and right; nothing is downloaded. Painters learn each modality alone, towers learn it
by questions about it; then a language model of 0.13 M weights between them learns to answer requests for several
modalities, half of which leave attributes to a medium in the prompt. Its states learn to be what the painters know: the
embeddings of phrases (as NExT-GPT aligns signal tokens with a generator's text encoder, https://arxiv.org/abs/2309.05519).
Half of all media are worn as a painter wears them: what it makes is seen, too. What is there already is kept.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Final, cast, final

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import modalign
from modalign.assembler import assemble, encode
from modalign.comparison import Comparison
from modalign.config import EncoderConfig
from modalign.content import Message, Part
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.draws import Draws
from modalign.integrations.painter import STATES, PainterDenoiser
from modalign.model import Model
from modalign.objectives import SFT
from modalign.registry import registry
from modalign.training import Trainer
from modalign.world.concept import VALUES
from modalign.world.packed import pack
from modalign.world.painter import Painter, phrases
from modalign.world.prompts import ask
from modalign.world.together import Together
from modalign_text.student import save_student

#: Steps in which a painter learns its modality, measured to be enough.
PAINTERS: Final = {"image": 1400, "audio": 1100, "video": 500}
PLUGINS: Final = Path(__file__).resolve().parent.parent / "plugins"
WEIGHT: Final = 0.05  #: of media beside a token

_SEED: Final = 100  #: of the requests: the quickstart's have others
_BATCH: Final = 16
_RATE: Final = 3e-3
_WORN: Final = 0.2  #: most noise in worn latents, whose own scale is 1


def main() -> None:
    """Teach what is missing, and pack it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/taught"), help="where the runs go")
    parser.add_argument("--tower_steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=900, help="of the whole model")
    parser.add_argument("--pack", action="store_true", help="write the weights into the plugins")
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = teach(args.folder, tower_steps=args.tower_steps, steps=args.steps)
    if args.pack:
        for folder in ship(made, PLUGINS):
            print(folder)


def teach(folder: Path, *, tower_steps: int, steps: int) -> Path:
    """The whole model, taught; the folder that holds it."""
    if (folder / "whole" / "final").is_dir():
        return folder / "whole" / "final"
    painters = {name: painter(folder, name, count) for name, count in PAINTERS.items()}
    encoders = {name: tower(folder, name, tower_steps, painters[name]) for name in PAINTERS}
    depictions = {name: registry.depiction(name) for name in ("text", *PAINTERS)}
    decoders = {
        name: {
            "path": str(path),
            "weight": WEIGHT,
            # as many states as it was told phrases, so that their sum is as large as what it knows
            "connector": {"queries": len(depictions[name].attributes & {*VALUES}), "heads": 4},
        }
        for name, path in painters.items()
    }
    words = save_student(folder / "words", together=True, positions=512, layers=3)
    still = ("encoders", *(f"decoders.{name}" for name in PAINTERS))
    model = modalign.compose(words, encoders=encoders, decoders=decoders, freeze=still)
    print(model.describe(), flush=True)
    world = Together(depictions=depictions, words="text", seed=_SEED, mistakes=0.0, strays=0.0)
    join(model, world, steps)
    model.save(folder / "whole" / "final")
    return folder / "whole" / "final"


def join(model: Model, world: Together, steps: int) -> None:
    """Teach the language model, and what stands between it and the painters; these stay as they are, and silent."""
    heard: dict[str, Tensor] = {}
    networks: dict[str, Painter] = {}
    for name in PAINTERS:
        decoder = cast(DenoisingDecoder, model.decoders[name])
        networks[name] = cast(Painter, decoder.denoiser.network)
        decoder.denoiser.network = _Silent()  # what it knows of the world is in its phrases: the rest is only time
        assert decoder.conditioner is not None
        decoder.conditioner.register_forward_hook(lambda _, __, out, name=name: heard.update({name: out[STATES]}))
    objective, rows = SFT(), world.rows("sft", min(_BATCH * steps, 12288))
    said = [{one.modality: world.depictions[one.modality].read(one) for one in _media(row)} for row in rows]
    rows = [wear(model, row) if number % 2 else row for number, row in enumerate(rows)]
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, steps, pct_start=0.03, cycle_momentum=False)
    for step in range(steps):
        places = [(step * _BATCH + at) % len(rows) for at in range(_BATCH)]
        samples = [encode(rows[at], model.assembly.preparer, objective.needs) for at in places]
        batch = assemble(samples, share=model.shares)
        loss = objective({"policy": model(batch, Draws(seed=step))}, batch.targets).mean
        apart = torch.zeros(())
        for name, network in networks.items():
            asked = [one for at in places if (one := said[at].get(name)) is not None]
            if asked:
                numbers = torch.stack([phrases(ask(one)) for one in asked])[:, : heard[name].shape[1]]
                apart = apart + mse_loss(heard[name], network.phrase(numbers))
        optimizer.zero_grad()
        (loss + apart).backward()
        torch.nn.utils.clip_grad_norm_(model.trainable().values(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"{step} loss {loss.item():.3f} states {apart.item():.3f}", flush=True)
    for name, network in networks.items():
        cast(DenoisingDecoder, model.decoders[name]).denoiser.network = network


@final
class _Silent(nn.Module):
    """In the place of a painter: no flow, whatever is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, noisy: Tensor, time: Tensor, asked: Tensor) -> Tensor:
        return torch.zeros_like(noisy) + self.none


def _media(row: Comparison) -> list[Part]:
    return [one for one in row.responses[0].segments() if one.modality in PAINTERS]


def wear(model: Model, row: Comparison) -> Comparison:
    """The row with media as painters make them: of their latents alone, and not quite right."""
    random = Random(row.id)

    def worn(messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(replace(one, parts=tuple(part(each) for each in one.parts)) for one in messages)

    def part(one: Part) -> Part:
        if one.modality not in PAINTERS or not isinstance(one.value, Tensor):
            return one
        made = cast(PainterDenoiser, cast(DenoisingDecoder, model.decoders[one.modality]).denoiser)
        with torch.no_grad():
            latents = made.codec.encode(made.canvas.patches(one.value[None]))
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(random.getrandbits(31)))
            return made.canvas.parts(made.codec.decode(latents + random.uniform(0, _WORN) * noise))[0]

    responses = tuple(replace(one, messages=worn(one.messages)) for one in row.responses)
    return replace(row, prompt=worn(row.prompt), responses=responses)


def painter(folder: Path, name: str, steps: int) -> Path:
    """A generator that knows its modality."""
    made = folder / f"{name}-painter"
    if not (made / "final").is_dir():
        student = registry.depiction(name).student(folder / f"{name}-student")
        assert student is not None
        rows = modalign.read("oracle", split=f"{name}/clean", limit=min(32 * steps, 4096))
        _train(modalign.load(student), rows, made, steps=steps, batch=32, rate=2e-3)
    return made / "final"


def tower(folder: Path, name: str, steps: int, painter: Path) -> EncoderConfig:
    """An encoder that sees or hears what is asked about its modality."""
    made = folder / f"{name}-tower"
    blank: EncoderConfig = import_module(f"modalign_{name}.student").save_encoder(folder / f"{name}-blank")
    if not (made / "final").is_dir():
        words = save_student(folder / f"{name}-words", questions=True)
        model = modalign.load(words, encoders={name: blank}, freeze=())
        rows = modalign.read("oracle", split=f"about/{name}/clean", limit=min(64 * steps, 8192))
        maker = modalign.load(painter)
        worn = [wear(maker, row) if number % 2 else row for number, row in enumerate(rows)]
        _train(model, worn, made, steps=steps, batch=64, rate=1e-3)
    return blank.model_copy(update={"path": str(made / "final" / "encoders" / name)})


def ship(whole: Path, plugins: Path) -> list[Path]:
    """Put each modality's share of a saved model into its plugin, the rest into the words'; the folders written."""
    found = [plugins / name / f"modalign_{name}" / "taught" for name in ("text", *PAINTERS)]
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    pack(whole, found[0])
    (found[0] / "README.md").unlink(missing_ok=True)  # the card of a run, with its paths
    for name, folder in zip(PAINTERS, found[1:], strict=True):
        for kind in ("encoders", "decoders"):
            (folder / kind).mkdir(parents=True)
            shutil.move(found[0] / kind / name, folder / kind / name)
    for kind in ("encoders", "decoders"):
        (found[0] / kind).rmdir()
    return found


def _train(model: Model, data: Sequence[Comparison], folder: Path, *, steps: int, batch: int, rate: float) -> None:
    Trainer(
        model=model,
        objective=SFT(),
        data=data,
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=10,
        quiet=True,
    ).train()


if __name__ == "__main__":
    main()
