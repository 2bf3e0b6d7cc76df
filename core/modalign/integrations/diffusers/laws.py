"""What must hold of every family: its pipeline is the oracle of what it does, and objectives take their closed forms.

b samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol, cast, final

import torch
from torch import Tensor, nn

from modalign.assembler import assemble, encode
from modalign.batch import Batch, Medium
from modalign.comparison import Comparison
from modalign.config import AdapterConfig, GenerationConfig
from modalign.content import Message, Part
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import FITTED, prompt_medium
from modalign.draws import Draws
from modalign.errors import DataError
from modalign.integrations.diffusers.behind_laws import check_behind
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.diffusers.family import Family, Pipeline
from modalign.integrations.diffusers.recording import noted, recorded
from modalign.integrations.diffusers.route_laws import check_leap, check_routes
from modalign.loading import load
from modalign.model import Model
from modalign.objectives import DPO, IPO, KTO, SFT
from modalign.objectives.base import Objective
from modalign.registry import registry
from modalign.testing.case import require
from modalign.timeline import Spans
from modalign.world.source import words_modality

_STEPS = 2
_PROMPTS = ("a red square", "two blue circles")


class Diffusers(Protocol):
    """Classes of pipelines, as diffusers saves and loads them."""

    def from_pretrained(self, folder: Path, **settings: object) -> Pipeline: ...


#: What `FamilyLaws` checks, by the names of its methods; the last two are given an empty folder.
LAWS: Final = (
    "equal_scores_give_closed_forms",
    "draws_are_shared",
    "errors_are_those_of_the_papers",
    "predictions_are_the_pipelines",
    "latents_are_the_pipelines",
    "writing_is_seeded",
    "spans_add_up",
    "gradients_come_back_along_routes",
    "leaps_are_what_a_step_predicts",
    "states_stand_for_prompts",
    "saved_pipelines_load",
    "adapters_load_in_the_pipeline",
)
_SAVING: Final = LAWS[-2:]
_WRITTEN: Final = 1e-3  # of values of media: what another order of the same sums becomes in a few steps of a sampler


@final
class FamilyLaws:
    """The laws of one family, each a method that raises where it does not hold.

    folder: of a tiny pipeline.
    rows: pairs whose responses are of the family's modality.
    options: settings of the family.
    seen: noisy latents and times of the process, from the arguments that the pipeline called its network with.
    shaped: a prediction of the network, as the family's `predict` gives it.
    ended: what the sampler ended with, shaped like a prediction, as the family's `scaled` gives it.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Comparison],
        options: Mapping[str, object] | None = None,
        *,
        seen: Callable[[Family, Mapping[str, object]], tuple[Tensor, Tensor]] | None = None,
        shaped: Callable[[Family, Tensor], Tensor] | None = None,
        ended: Callable[[Family, Tensor], Tensor] | None = None,
    ) -> None:
        self.folder, self.rows, self.options = folder, list(rows), dict(options or {})
        self.seen = seen or plainly_seen
        self.shaped = shaped or (lambda family, prediction: prediction)
        self.ended = ended or (lambda family, latents: latents)

    # --- parts -----------------------------------------------------------------------------------

    @cached_property
    def base(self) -> Model:
        """The model, for laws that change nothing of it."""
        return self.model()

    def model(self, *, adapter: bool = False) -> Model:
        """The model anew, with adapters that start at nothing where asked."""
        settings = {"adapter": AdapterConfig(r=2)} if adapter else {}
        return load(str(self.folder), options=self.options, **settings).eval()

    def batch(self, model: Model, objective: Objective) -> Batch:
        """All rows in one batch."""
        partners = [*self.rows[1:], self.rows[0]]
        needs = objective.needs
        samples = [
            encode(one, model.assembly.preparer, needs, partner=other if needs.mismatched else None)
            for one, other in zip(self.rows, partners, strict=True)
        ]
        return assemble(samples, share=model.shares)

    def check(self, law: str, place: Path) -> None:
        """Raise where a law does not hold.

        law: one of `LAWS`.
        place: an empty folder.
        """
        holds = cast("Callable[..., None]", getattr(self, law))
        holds(place) if law in _SAVING else holds()

    # --- laws ------------------------------------------------------------------------------------

    def equal_scores_give_closed_forms(self) -> None:
        """At adapter start every log-ratio is exactly 0, so DPO is log 2, IPO 1 / (4 beta^2) and KTO 1/2."""
        model = self.model(adapter=True)
        adapters = model.assembly.adapters
        assert adapters is not None
        for objective, expected in (
            (DPO(), math.log(2)),
            (IPO(beta=0.5), 1.0),
            (KTO(), 0.5),
        ):
            batch, draws = self.batch(model, objective), Draws(seed=1, count=2)
            policy = model(batch, draws)
            with torch.no_grad(), adapters.off():
                reference = model(batch, draws)
            require(bool((policy.logps == reference.logps).all()), "log-ratios are exactly 0 at adapter start")
            loss = objective({"policy": policy, "reference": reference}, batch.targets)
            close = math.isclose(loss.mean.item(), expected, rel_tol=1e-12)
            require(close, f"{type(objective).__name__} is {expected} and not {loss.mean.item()}")
            loss.sum.backward()
        trained = {name for name, value in model.named_parameters() if value.requires_grad}
        moved = [name for name, value in model.trainable().items() if value.grad is not None and value.grad.any()]
        require(bool(moved) and all("lora_" in name for name in trained), "adapters, and nothing else, get gradients")

    def draws_are_shared(self) -> None:
        """Equal draws give equal scores; others give others; the order in the batch does not matter."""
        model = self.base
        batch = self.batch(model, DPO())
        with torch.no_grad():
            first, again, other = (model(batch, Draws(seed=seed)).logps for seed in (1, 1, 2))
            turned = FamilyLaws(self.folder, self.rows[::-1], self.options)
            back = model(turned.batch(model, DPO()), Draws(seed=1)).logps.reshape(-1, 2).flip(0).reshape(-1)
        require(bool((first == again).all()), "equal draws give equal scores")
        require(not torch.allclose(first, other), "other draws give other scores")
        require(torch.allclose(first, back, rtol=1e-5), "the order in the batch does not matter")

    def errors_are_those_of_the_papers(self) -> None:
        """Scores and losses are those of an independent float64 computation from the network's predictions."""
        model = self.base
        decoder = _decoder(model)
        denoiser = decoder.denoiser
        batch, draws = self.batch(model, DPO()), Draws(seed=4, count=2)
        with torch.no_grad():
            scores = model(batch, draws)
            expected = torch.zeros(batch.responses, dtype=torch.float64)
            for segment in batch.segments:
                assert segment.digest is not None
                assert segment.given is not None
                clean = denoiser.latents([batch.media[segment.digest]])[0]
                condition = denoiser.conditions([batch.media[segment.given]])[0]
                for draw in range(draws.count):
                    noise = draws.noise(segment.key, draw, tuple(clean.shape))
                    time = denoiser.process.time(torch.tensor([draws.uniform(segment.key, draw)]))
                    signal, amount = (one.item() for one in denoiser.process.coefficients(time))
                    noisy = (signal * clean.double() + amount * noise.double()).float()
                    found = denoiser(noisy[None], time, {name: one[None] for name, one in condition.items()})[0]
                    match denoiser.process.prediction:
                        case "epsilon":
                            target = noise.double()
                        case "sample":
                            target = clean.double()
                        case "v":
                            target = signal * noise.double() - amount * clean.double()
                        case "flow":
                            target = noise.double() - clean.double()
                    error = (found.double() - target).square().sum()
                    expected[segment.response] -= error / 2 / draws.count
        require(torch.allclose(scores.logps, expected, rtol=1e-5), f"{scores.logps} is {expected}")
        loss = SFT()({"policy": model(self.batch(model, SFT()), draws)}, self.batch(model, SFT()).targets)
        chosen = expected[batch.targets.pairs[:, 0]]
        require(math.isclose(loss.mean.item(), -chosen.mean().item(), rel_tol=1e-5), "SFT is the denoising loss")

    def predictions_are_the_pipelines(self) -> None:
        """The network is called as its own pipeline calls it: same arguments at the same latents and time."""
        model = self.base
        family = _family(model)
        with recorded(family.denoise) as calls:
            self._write(family, guidance=0.0)
        require(bool(calls), "the pipeline calls its network")
        theirs, given = calls[0]
        condition = _decoder(model).denoiser.conditions([prompt_medium(_PROMPTS[0], words_modality())])[0]
        ready = {name: one[None] for name, one in condition.items()}
        noisy, time = self.seen(family, given)
        with torch.no_grad():
            mine = _decoder(model).denoiser(noisy, time, ready)
        theirs = self.shaped(family, theirs)
        require(mine.shape == theirs.shape, f"{tuple(mine.shape)} is {tuple(theirs.shape)}")
        require(torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5), f"off by {(mine - theirs).abs().max():.2g}")

    def latents_are_the_pipelines(self) -> None:
        """What the pipeline gives its autoencoder to decode is scaled back to the latents its sampler ended with."""
        model = self.base
        family = _family(model)
        autoencoder, scheduler = family.part(family.autoencoder), family.pipe.scheduler
        with noted(autoencoder, "decode") as decoded, noted(scheduler, "step") as steps:
            self._write(family, guidance=0.0)
        require(len(decoded) == 1 and bool(steps), "the pipeline samples, and decodes once")
        ended = cast("tuple[Tensor] | Mapping[str, Tensor]", steps[-1][1])
        last = self.shaped(family, ended[0] if isinstance(ended, tuple) else ended["prev_sample"])
        theirs = self.ended(family, last).float()
        mine = family.scaled(cast(Tensor, decoded[0][0])).float()
        require(mine.shape == theirs.shape, f"{tuple(mine.shape)} is {tuple(theirs.shape)}")
        require(torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4), f"off by {(mine - theirs).abs().max():.2g}")
        fitted = model.assembly.preparer.encode(self.rows[0])[0].media
        media = [one for one in fitted.values() if one.modality == family.modality]
        latents = _decoder(model).denoiser.latents(media)[0]
        require(
            latents.shape == theirs.shape[1:],
            f"latents of data {tuple(latents.shape)}, of the sampler {tuple(theirs.shape[1:])}",
        )

    def writing_is_seeded(self) -> None:
        """Equal seeds write the same, others do not; a prompt's medium does not depend on what is beside it."""
        model = self.base
        together = _values(model, _PROMPTS, seed=1)
        require(torch.equal(together[0], _values(model, _PROMPTS, seed=1)[0]), "equal seeds write the same")
        require(not torch.equal(together[0], _values(model, _PROMPTS, seed=2)[0]), "other seeds write something else")
        alone = _values(model, _PROMPTS[:1], seed=1)[0]
        require(
            torch.allclose(together[0], alone, atol=_WRITTEN), "a prompt's medium does not depend on its neighbours"
        )

    def spans_add_up(self) -> None:
        """Latents last as long as their medium, and spans of it that complement one another are the whole; media
        without time have no spans."""
        model = self.base
        family, preparer = _family(model), model.assembly.preparer
        if not registry.modality(family.modality).timed:
            for ask in (lambda: family.timeline, lambda: preparer.encode(_spanned(self.rows[0], ((0.0, 1.0),)))):
                try:
                    ask()
                except DataError as error:
                    require("has no time" in str(error), f"it must say why; found: {error}")
                else:
                    require(False, f"{family.modality} has no time, and yet spans")
            return
        encoded = preparer.encode(self.rows[0])[0]
        (medium,) = [encoded.media[one.digest or ""] for one in encoded.segments]
        fitted = medium.tensors[FITTED]
        seconds = family.fit.seconds(fitted, family.rate)
        line, latents = family.timeline, _decoder(model).denoiser.latents([medium])[0]
        times = line.times(latents.shape[line.axis])
        lasts = times[-1][1]
        require(seconds is not None and math.isclose(lasts, seconds), f"latents last {lasts} s, the medium {seconds} s")
        self._end_is_last(medium, latents, times)
        cut = 0.37 * lasts
        first, second = ((0.0, cut),), ((cut, 2 * lasts),)
        whole, every, some, rest = (self._scored(spans) for spans in ((), (*first, *second), first, second))
        require(every.equal(whole), "spans of everything are the whole, exactly")
        chosen, others = (some + rest)[:, 0], torch.stack([some, rest])[:, :, 1]
        require(torch.allclose(chosen, whole[:, 0], rtol=1e-9), f"the parts {chosen} are the whole {whole[:, 0]}")
        require(bool((some[:, 0] < 0).all() and (rest[:, 0] < 0).all()), "each part has errors")
        require(bool((others == whole[:, 1]).all()), "the other response of a pair has spans of its own")

    def gradients_come_back_along_routes(self) -> None:
        """Media of a route are those that are sampled without gradients, and its last steps alone have a graph."""
        check_routes(self.model(adapter=True))

    def leaps_are_what_a_step_predicts(self) -> None:
        """A route that leaps from a step decodes what is clean by that step's prediction, and takes no step more."""
        check_leap(self.base, self.seen, self.shaped, self.ended)

    def states_stand_for_prompts(self) -> None:
        """Behind a backbone its pipeline calls the network with the states that it is scored with, or it refuses."""
        check_behind(self.model(), self.seen, self.shaped)

    def saved_pipelines_load(self, place: Path) -> None:
        """A pipeline saved here loads with diffusers' `from_pretrained` and writes what this one writes."""
        model = self.model()
        _nudge(_decoder(model).denoiser.network)
        model.save(place)
        kind = cast(Diffusers, type(_family(model).pipe))
        self._same_as(model, kind.from_pretrained(place, local_files_only=True))

    def adapters_load_in_the_pipeline(self, place: Path) -> None:
        """Adapters trained here work in diffusers: as a LoRA where the pipeline loads one, and merged."""
        model = self.model(adapter=True)
        for name, value in model.trainable().items():
            if "lora_B" in name:
                with torch.no_grad():
                    value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.2)
        kind = cast(Diffusers, type(_family(model).pipe))
        base = kind.from_pretrained(self.folder, local_files_only=True)
        before = self._written_by(base)
        written = _values(model, _PROMPTS, seed=1)[0]
        require(not torch.allclose(before, written, atol=50 * _WRITTEN), "the adapters matter")
        model.save(place / "adapter")
        if hasattr(kind, "load_lora_weights"):
            base.load_lora_weights(place / "adapter", weight_name="pytorch_lora_weights.safetensors")  # pyright: ignore[reportAttributeAccessIssue]
            self._same_as(model, base)
        model.save(place / "merged", merge=True)
        self._same_as(model, kind.from_pretrained(place / "merged", local_files_only=True))
        again = load(str(place / "adapter"), options=self.options).eval()
        found = _values(again, _PROMPTS, seed=1)[0]
        require(torch.allclose(found, written, atol=_WRITTEN), "adapters that were saved load again")

    def _scored(self, spans: Spans) -> Tensor:
        """Scores of chosen and rejected, ``b 2``, where these spans of the chosen are scored."""
        rows = [_spanned(one, spans) for one in self.rows]
        model = self.base
        with torch.no_grad():
            batch = FamilyLaws(self.folder, rows, self.options).batch(model, DPO())
            return model(batch, Draws(seed=5, count=2)).logps.reshape(-1, 2)

    def _end_is_last(self, medium: Medium, latents: Tensor, times: Sequence[tuple[float, float]]) -> None:
        """Raise where another end of a medium changes its first latents more than its last."""
        family = _family(self.base)
        changed, line = medium.tensors[FITTED].clone(), family.timeline
        axis = 0 if changed.ndim > 3 else -1  # frames of a clip, samples of a sound
        quarter = changed.narrow(axis, changed.shape[axis] * 3 // 4, -(-changed.shape[axis] // 4))
        quarter.copy_(quarter.flip(-1, -2) if changed.ndim > 3 else torch.linspace(-0.5, 0.5, quarter.shape[-1]))
        other = _decoder(self.base).denoiser.latents([replace(medium, tensors={FITTED: changed})])[0]
        moved = (other - latents).abs().movedim(line.axis, 0).flatten(1).mean(1)
        at = torch.tensor([(start + end) / 2 / times[-1][1] for start, end in times])
        early, late = moved[at < 0.5].mean(), moved[at >= at[-1].clamp(max=0.7)].mean()
        require(bool(early < late), f"what comes last changes the last latents most; found: {moved}")

    # --- inside ----------------------------------------------------------------------------------

    def _same_as(self, model: Model, pipe: Pipeline) -> None:
        ours, theirs = _values(model, _PROMPTS, seed=1)[0], self._written_by(pipe)
        require(
            torch.allclose(ours, theirs, atol=_WRITTEN), f"the pipeline writes the same ({(ours - theirs).abs().max()})"
        )

    def _written_by(self, pipe: Pipeline) -> Tensor:
        """What a pipeline that diffusers loaded writes, asked as the family asks its own."""
        mine = self.base
        family = type(_family(mine))(pipe, _family(mine).settings)
        pipe.set_progress_bar_config(disable=True)  # pyright: ignore[reportAttributeAccessIssue]
        (part, *_) = family.write(_PROMPTS, GenerationConfig(seed=1, num_inference_steps=_STEPS), 0)
        return cast(Tensor, part.value)

    def _write(self, family: Family, *, guidance: float) -> None:
        with torch.no_grad():
            config = GenerationConfig(seed=1, num_inference_steps=_STEPS, guidance_scale=guidance)
            family.write(_PROMPTS[:1], config, 0)


def plainly_seen(family: Family, given: Mapping[str, object]) -> tuple[Tensor, Tensor]:
    """Of a network that is called with the latents as they are, and times of a flow times 1000."""
    noisy = cast(Tensor, given["hidden_states"] if "hidden_states" in given else given["sample"])
    time = cast(Tensor, given["timestep"]).double().reshape(-1).expand(noisy.shape[0])
    return noisy, time if family.process.path == "table" else time / 1000


def _values(model: Model, prompts: Sequence[str], *, seed: int) -> list[Tensor]:
    asked = [[Message(role="user", parts=(Part(modality=words_modality(), value=one),))] for one in prompts]
    found = model.generate(asked, seed=seed, num_inference_steps=_STEPS)
    return [cast(Tensor, next(one.parts()).value) for one in found]


def _spanned(pair: Comparison, spans: Spans) -> Comparison:
    """The pair with these spans of its chosen response alone."""
    messages = tuple(
        replace(one, parts=tuple(replace(part, spans=spans) for part in one.parts)) for one in pair.chosen.messages
    )
    return replace(pair, responses=(replace(pair.chosen, messages=messages), pair.rejected))


def _decoder(model: Model) -> DenoisingDecoder:
    (decoder,) = model.decoders.values()
    return cast(DenoisingDecoder, decoder)


def _family(model: Model) -> Family:
    return cast(PipelineDenoiser, _decoder(model).denoiser).family


def _nudge(network: nn.Module) -> None:
    """Move weights a little, so that what is saved is not what was loaded."""
    with torch.no_grad():
        for number, value in enumerate(network.parameters()):
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)), alpha=0.05)
