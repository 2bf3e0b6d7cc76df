"""What must hold of a model that reads media and an objective that trains it, tried in one optimizer step."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor, nn

from modalign.assembler import Sample, assemble, encode, select
from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.content import Response
from modalign.draws import Draws
from modalign.model import Model
from modalign.objectives import Objective
from modalign.objectives.base import Loss
from modalign.scores import Scores
from modalign.testing.case import require
from modalign.training import Trainer
from modalign.training.reference import AdaptersOff
from modalign_text.media import media_of
from modalign_text.multimodal.cases import in_history, in_prompt, in_responses, medium, message
from modalign_text.multimodal.whole import WholeBackbone

TOLERANCE = 1e-5  #: relative: what another order of the same sums may change
STRANGER = 9  #: seed of a medium that no comparison shows

_JUDGED: tuple[tuple[Mapping[str, float], Mapping[str, float], Mapping[str, float]], ...] = (
    ({"clarity": 1.0, "warmth": 0.5}, {"truth": 2, "unsafe": 0, "rude": 1}, {"truth": 0, "unsafe": 1, "rude": 0}),
    ({"clarity": 0.0}, {"truth": 1, "unsafe": 0, "rude": 0}, {"truth": 3, "unsafe": 0, "rude": 1}),
    ({"clarity": 1.0, "warmth": 1.0}, {"truth": 3, "unsafe": 1, "rude": 0}, {"truth": 1, "unsafe": 1, "rude": 0}),
)


def comparisons(modality: str) -> list[Comparison]:
    """Pairs with media in the prompt, in history, and in the responses (different ones), judged in every way there is.

    >>> [len(media_of([*one.prompt, *one.chosen.messages, *one.rejected.messages])) for one in comparisons("image")]
    [1, 2, 2]
    """
    made = (in_prompt(modality), in_history(modality), in_responses(modality))
    return [
        replace(
            one,
            preferences=preferences,
            responses=tuple(
                replace(response, scores=scores) for response, scores in zip(one.responses, said, strict=True)
            ),
        )
        for one, (preferences, *said) in zip(made, _JUDGED, strict=True)
    ]


@final
class Cell:
    """One model with new adapters, and one objective.

    modality: of the media it is tried on.
    start: the objective's loss at equal scores, of `comparisons` and a vocabulary of so many tokens.
    folder: an empty one, for the run.
    """

    def __init__(
        self, model: Model, objective: Objective, modality: str, start: Callable[[int], float], folder: Path
    ) -> None:
        self.model, self.objective, self.modality, self.start = model, objective, modality, start
        self.data = comparisons(modality)
        self.run = folder / "run"
        self.trainer = Trainer(
            model=model,
            objective=objective,
            data=self.data,
            eval_data=self.data,
            output_dir=self.run,
            max_steps=1,
            per_device_train_batch_size=len(self.data),
            per_device_eval_batch_size=len(self.data),
            learning_rate=1e-3,
            quiet=True,
        )
        self.base = AdaptersOff(self.trainer.parts.policy)

    def check(self) -> None:
        """Raise a `PluginError` that says what does not hold."""
        batch = self.batch(self.data)
        self._rows_of_their_own(batch)
        self._media_matter(batch)
        self._starts_at_its_closed_form(batch)
        before = self._starts_as_its_base(batch)
        self._one_step()
        self._base_stays(batch, before)
        if self.objective.needs.pairing != "response":  # it sees one response, so there is nothing to turn round
            self._turns_round()

    # --- the laws ----------------------------------------------------------------------------------------------

    def _rows_of_their_own(self, batch: Batch) -> None:
        """Branches of one trunk score as separate rows do, where the model shares at all."""
        if not self.model.shares:
            return
        plain = self.objective.needs.pairing == "response"  # one response to a prompt has nothing to share
        require(plain or not batch.layout.plain, "responses must share their prompt", got="rows of their own")
        apart = self._numbers(self.scores(self.batch(self.data, share=False)))
        found = self._numbers(self.scores(batch))
        off = float((found - apart).abs().max() / apart.abs().max())
        require(off <= TOLERANCE, "branches of one trunk must score as separate rows do", got=f"{off:.1e} apart")

    def _media_matter(self, batch: Batch) -> None:
        """Another medium in a prompt gives other scores of its responses, and of no others."""
        prompt = (message("user", "look: ", medium(self.modality, STRANGER), " what is it?"),)
        other = self.batch([replace(self.data[0], prompt=prompt), *self.data[1:]])
        own = self._numbers(self.scores(batch)).reshape(batch.responses, -1)
        found = self._numbers(self.scores(other)).reshape(batch.responses, -1)
        off = ((found - own).abs().amax(-1) / own.abs().max()).tolist()  # a
        first = len(self._taken(self.data[0]))
        require(min(off[:first]) > 10 * TOLERANCE, "another medium must give other scores", got=off[:first])
        if not self.objective.needs.mismatched:  # those are laid under the prompts of their neighbours
            require(max(off[first:]) <= TOLERANCE, "a medium must be seen by its own comparison only", got=off[first:])

    def _starts_at_its_closed_form(self, batch: Batch) -> None:
        """At equal scores the loss is what its formula says."""
        if "reference" in self.objective.needs.roles:  # new adapters are equal scores as they are
            found, wanted = float(self.loss(batch).mean), self.start(0)
        else:
            with flat(self.model) as vocabulary:
                found, wanted = float(self.loss(batch).mean), self.start(vocabulary)
        right = abs(found - wanted) <= TOLERANCE * wanted
        require(right, f"at equal scores the loss must be {wanted:.6f}", got=found)

    def _starts_as_its_base(self, batch: Batch) -> Tensor:
        """New adapters change nothing: every log-ratio is exactly 0. Returns the base's numbers."""
        own, base = self._numbers(self.scores(batch)), self._numbers(self.scores(batch, base=True))
        require(own.equal(base), "new adapters must change nothing", got=float((own - base).abs().max()))
        return base

    def _one_step(self) -> None:
        """A step lowers the loss of its own batch, moves adapters, connectors and heads, and sees each medium once."""
        adapters = self.model.assembly.adapters
        assert adapters is not None
        moving = {
            "adapters": {id(one) for one in adapters.parameters()},
            "connectors": {id(one) for one in self.model.connectors.parameters()},
            "heads": {id(one) for one in self.model.heads.parameters()},
        }
        before = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        first = self.trainer.evaluate()["eval_loss"]
        self.model.memo.take()  # what was counted up to here is no part of the step
        self.trainer.train()
        row = cast("dict[str, float]", json.loads((self.run / "metrics.jsonl").read_text().splitlines()[0]))
        require(math.isclose(row["loss"], first, rel_tol=TOLERANCE), "both must be of one batch", got=(row, first))
        last = self.trainer.evaluate()["eval_loss"]
        require(last < first, "a step must lower the loss of its own batch", got=f"{first} before, {last} after")
        moved = {
            name: id(value) for name, value in self.model.named_parameters() if not value.detach().equal(before[name])
        }
        strange = [name for name, one in moved.items() if not any(one in group for group in moving.values())]
        require(not strange, "what is frozen must not move", got=strange[:3])
        for name, group in moving.items():
            still = group and not any(one in group for one in moved.values())
            require(not still, f"{name} must move", got=f"{len(moved)} other parameters did")
        media = self.media()
        passes = row[f"encoder/{self.modality}/passes"]
        if isinstance(self.model.backbone, WholeBackbone):  # its decoder looks at media itself, row by row
            require(passes >= media, f"{media} media must be {media} passes of the tower or more", got=passes)
        else:
            require(passes == media, f"{media} media must be {media} passes of the tower", got=passes)

    def _base_stays(self, batch: Batch, before: Tensor) -> None:
        """After the step the reference is still what the model was, to the last bit, and the model is not."""
        after = self._numbers(self.scores(batch, base=True))
        require(after.equal(before), "the base must answer as before", got=float((after - before).abs().max()))
        require(not self._numbers(self.scores(batch)).equal(before), "the model must answer otherwise", got="the same")

    def _turns_round(self) -> None:
        """Swapping the responses under what was said of them negates the margin, or matters not to judges of one."""
        turned = [replace(one, responses=one.responses[::-1]) for one in self.data]
        one, other = (self.loss(self.batch(data)) for data in (self.data, turned))
        if self.objective.needs.pairing == "each":
            off = abs(float(one.mean - other.mean)) / abs(float(one.mean))
            require(off <= TOLERANCE, "responses judged alone must not depend on their order", got=off)
            return
        straight, back = margin(one), margin(other)
        same = straight != 0 and abs(straight + back) <= 1e-3 * abs(straight)  # a difference of numbers far larger
        require(same, "swapping chosen and rejected must negate the margin", got=f"{straight} and {back}")

    # --- what they are made of ---------------------------------------------------------------------------------

    def batch(self, data: Sequence[Comparison], *, share: bool | None = None) -> Batch:
        """One micro-batch of comparisons, as the trainer lays them out."""
        needs, preparer = self.objective.needs, self.model.assembly.preparer
        samples: list[Sample] = []
        for one, partner in zip(data, [*data[1:], data[0]], strict=True):
            samples.append(encode(one, preparer, needs, partner=partner if needs.mismatched else None))
        shared = self.model.shares if share is None else share
        return assemble(samples, share=shared, pad=preparer.pad, units=needs.units)

    def scores(self, batch: Batch, *, base: bool = False) -> Scores:
        """Scores of the model, or of what it was before it trained."""
        policy = self.trainer.parts.policy
        with torch.no_grad(), policy.prepared():
            self.model.eval()
            return self.base.scores(batch, Draws()) if base else policy.scores(batch, Draws())

    def loss(self, batch: Batch) -> Loss:
        """The objective's loss of a batch, with its own statistics."""
        roles = self.objective.needs.roles
        return self.objective({role: self.scores(batch, base=role == "reference") for role in roles}, batch.targets)

    def media(self) -> int:
        """How many different media the objective takes from the comparisons."""
        messages = [one.prompt for one in self.data]
        messages += [response.messages for one in self.data for response in self._taken(one)]
        return len({part.digest for some in messages for part in media_of(some)})

    def _taken(self, one: Comparison) -> Sequence[Response]:
        return select(one, self.objective.needs.pairing)[0]

    def _numbers(self, scores: Scores) -> Tensor:
        """What the objective reads of each response: its log-likelihood, or the numbers of its head."""
        heads = self.objective.needs.heads
        return torch.cat([scores.rewards[name] for name in heads], dim=-1).double() if heads else scores.logps


def margin(loss: Loss) -> float:
    """How much better the better responses scored than the others."""
    means = {name: float(mean.sum / mean.count) for name, mean in loss.metrics.items() if mean.count}
    if "rewards/margins" not in means and "margin" not in means:  # responses that are no pairs have two means
        return means["rewards/chosen"] - means["rewards/rejected"]
    return means["margin"] if "margin" in means else means["rewards/margins"]


@contextmanager
def flat(model: Model) -> Iterator[int]:
    """Within it every token is as likely as any other and every head says 0; gives the number of tokens there are."""
    heads = [one for one in (*model.decoders.modules(), *model.heads.modules()) if isinstance(one, nn.Linear)]
    (head,) = (one for one in model.decoders.modules() if isinstance(one, nn.Linear))
    kept = [(value, value.detach().clone()) for one in heads for value in one.parameters()]
    with torch.no_grad():
        for value, _ in kept:
            value.zero_()
        try:
            yield head.out_features
        finally:
            for value, before in kept:
                value.copy_(before)
