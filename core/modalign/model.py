"""A model assembled from roles, with one differentiable entry: forward(batch, draws) -> Scores."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast, final

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from modalign.batch import Batch, own
from modalign.caching import still
from modalign.caching.memo import Memo
from modalign.config import GenerationConfig
from modalign.content import Message, Part, Response
from modalign.decoders.backprop import MADE, Backprop
from modalign.draws import Draws
from modalign.errors import ConfigError, ModelError
from modalign.roles import Assembly, Backbone, Connector, Decoder, Encoder, Head
from modalign.scores import Scores, Units
from modalign.streaming import Event, stream

if TYPE_CHECKING:
    from modalign.describing import Description


@final
class Model(nn.Module):
    """Encoders, connectors, a backbone, decoders and reward heads, by name.

    backbone: None for a model whose decoders need no states.
    decoders: by the name that segments use.
    encoders: by modality; ``connectors`` of the same name fit them to the backbone.
    heads: reward heads by name.
    assembly: how input is prepared, how it writes and how it is saved.
    """

    def __init__(
        self,
        *,
        assembly: Assembly,
        backbone: Backbone | None = None,
        decoders: Mapping[str, Decoder] | None = None,
        encoders: Mapping[str, Encoder] | None = None,
        connectors: Mapping[str, Connector] | None = None,
        heads: Mapping[str, Head] | None = None,
    ) -> None:
        super().__init__()
        for name, encoder in (encoders or {}).items():
            if backbone is not None and name not in (connectors or {}) and encoder.width != backbone.width:
                raise ModelError(
                    "these parts do not fit without a connector",
                    where=f"connectors.{name}",
                    got=f"embeddings of width {encoder.width} for states of width {backbone.width}",
                    fix=f"give connectors={{{name!r}: ...}}, one that is registered or your own",
                )
        self.assembly = assembly
        self.backbone = backbone
        self.decoders = nn.ModuleDict(dict(decoders or {}))
        self.encoders = nn.ModuleDict(dict(encoders or {}))
        self.connectors = nn.ModuleDict(dict(connectors or {}))
        self.heads = nn.ModuleDict(dict(heads or {}))
        self.memo = Memo()
        for part in (*(encoders or {}).values(), *(decoders or {}).values()):
            part.memo = self.memo

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but frozen towers, whose answers are remembered and so must not vary."""
        super().train(mode)
        for encoder in self.encoders.values():
            for tower in cast(Encoder, encoder).parts()[0]:
                if not any(value.requires_grad for value in tower.parameters()):
                    tower.eval()
        return self

    def forward(self, batch: Batch, draws: Draws, backprop: Backprop | None = None) -> Scores:
        """Scores of every response of the batch: the only differentiable entry.

        backprop: make the responses, and score them with a reward: `Scores.rewards` has it under `MADE`.
        """
        if backprop is not None:
            return self._made(batch, draws, backprop)
        states = None if self.backbone is None else self._anchored(self._states(batch))  # r n d
        units: dict[str, Units] = {}
        if batch.segments:
            units = {name: decoder(states, batch, draws) for name, decoder in self.decoders.items()}
        rewards: dict[str, Tensor] = {}
        if states is not None:
            rewards = {name: head(states, batch) for name, head in self.heads.items()}
        return Scores(
            units=units,
            response=torch.tensor([one.response for one in batch.segments], dtype=torch.long, device=batch.device),
            weight=torch.tensor([one.weight for one in batch.segments], dtype=torch.float64, device=batch.device),
            responses=batch.responses,
            rewards=rewards,
        )

    def _made(self, batch: Batch, draws: Draws, backprop: Backprop) -> Scores:
        found = [cast(Decoder, decoder).judged(batch, draws, backprop) for decoder in self.decoders.values()]
        return Scores(
            units={},
            response=torch.zeros(0, dtype=torch.long, device=batch.device),
            weight=torch.zeros(0, dtype=torch.float64, device=batch.device),
            responses=batch.responses,
            rewards={MADE: torch.stack(found).sum(0)[:, None]},
        )

    def _states(self, batch: Batch) -> Tensor:
        backbone = cast(Backbone, self.backbone)
        return still.states(self, batch, lambda: backbone(batch, self.embed(batch)))

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        """Each medium that has a slot, encoded once, ``m d`` by digest."""
        wanted = list(dict.fromkeys(slot.digest for slot in batch.slots))
        found: dict[str, Tensor] = {}
        for name, encoder in self.encoders.items():
            media = {digest: batch.media[digest] for digest in wanted if batch.media[digest].modality == name}
            connector = self.connectors[name] if name in self.connectors else None  # noqa: SIM401 - no `get` there
            for digest, embedding in self.memo.encode(name, cast(Encoder, encoder), media).items() if media else ():
                found[digest] = embedding if connector is None else connector(embedding)
        for name, decoder in self.decoders.items():
            mine = [digest for digest in wanted if batch.media[digest].modality == own(name)]
            found |= {digest: cast(Decoder, decoder).embed(batch.media[digest]) for digest in mine}
        if missing := [digest for digest in wanted if digest not in found]:
            modality = batch.media[missing[0]].modality
            raise ModelError(
                f"no encoder for {modality!r} media",
                got=f"encoders: {', '.join(self.encoders) or 'none'}",
                fix=f"use a model that takes {modality}",
            )
        return found

    def _anchored(self, states: Tensor) -> Tensor:
        """The states, differentiable wherever anything before them trains.

        A batch of words alone reaches no encoder; where only encoders and connectors train its loss would have no
        gradient, and a process whose backward pass has nothing to do leaves the others waiting.
        """
        if states.requires_grad or not torch.is_grad_enabled():
            return states
        ahead = [*self.encoders.parameters(), *self.connectors.parameters()]
        idle = [value.reshape(-1)[:1].sum() * 0.0 for value in ahead if value.requires_grad]
        return states + torch.stack(idle).sum() if idle else states

    @property
    def shares(self) -> bool:
        """Whether responses to one prompt can be laid out as branches of one trunk."""
        return self.backbone is not None and self.backbone.shares

    def describe(self) -> Description:
        """Its parts, with shapes and numbers of parameters, as a table (`print`) or a drawing (`.svg()`)."""
        from modalign.describing import describe

        return describe(self)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def save(self, folder: str | Path, *, merge: bool = False) -> None:
        """Write the model, or its adapters, in the format its library reads.

        merge: fold the adapters into the weights and write a whole model.
        """
        self.assembly.save(self, Path(folder), merge=merge)

    def generate(
        self,
        prompts: Sequence[str | Sequence[Message]],
        *,
        progress: Callable[[int], None] | None = None,
        **settings: object,
    ) -> list[Response]:
        """One response to each prompt; settings are those of `GenerationConfig`.

        prompts: what a user says, in words; or messages.
        """
        if isinstance(prompts, str):
            raise ConfigError("prompts are a list", where="prompts", got=repr(prompts)[:80], fix="put it in brackets")
        asked = [_said(one) for one in prompts]
        return self.assembly.generate(self, asked, generation(settings), progress=progress)

    def stream(self, prompt: str | Sequence[Message], **settings: object) -> Generator[Event, None, None]:
        """One response as it is made: words, media that are opened and made, and at the end the whole.

        prompt: what a user says, in words; or messages.

        The same settings give the same response as `generate`. The model is at work in a thread until the last event
        is read, or the iterator is closed.
        """
        config = generation(settings)
        return stream(lambda prompts: self.assembly.generate(self, prompts, config), _said(prompt))


def _said(prompt: str | Sequence[Message]) -> Sequence[Message]:
    """A prompt as messages: words are what a user says."""
    if not isinstance(prompt, str):
        return prompt
    from modalign.world.source import words_modality  # it imports what makes worlds

    return [Message(role="user", parts=(Part(modality=words_modality(), value=prompt),))]


def generation(settings: Mapping[str, object]) -> GenerationConfig:
    """Settings of `GenerationConfig` by name; a `ConfigError` names the one that is wrong."""
    try:
        return GenerationConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(GenerationConfig.model_fields)
        raise ConfigError(first["msg"], where=where, got=repr(first["input"]), fix=f"settings: {known}") from error
