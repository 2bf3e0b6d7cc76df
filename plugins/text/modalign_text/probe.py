"""Whether a loaded model can compute a prompt once for several responses: a rule to begin with, then a proof.

The rule refuses what cannot branch (states that run over a row, attention that bypasses masks). The proof runs a
trunk with two branches through the loaded model beside separate rows: some families are silently wrong, not loud. A
control, the same row under a plainly causal mask, must differ, or equality would prove nothing.

r rows, n tokens, d width.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, cast, final

import torch
from torch import Tensor, nn

from modalign.batch import Batch, Targets
from modalign.errors import ModelError
from modalign.layout import Layout, fork
from modalign_text.backbone import CausalLMBackbone, Sharing

_LOG = logging.getLogger("modalign")

_TRUNK: Final = 12
_BRANCHES: Final = (5, 7)
_WINDOW: Final = 5  # windows are shrunk to this for a second proof: a lost window shows only in rows longer than it
_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}  # of the largest state
_MARGIN: Final = 10.0  # the control must be this many times further off
_LAYERS: Final = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


@final
@dataclass(frozen=True, kw_only=True)
class Proof:
    """What one probe found. Both numbers are relative to the largest state.

    error: between the tree and separate rows.
    control: between the same row under a plainly causal mask and separate rows.
    tolerance: what the type of the weights allows.
    """

    error: float
    control: float
    tolerance: float

    @property
    def holds(self) -> bool | None:
        """Whether the tree equals separate rows; None where the probe could not have told."""
        if self.error <= self.tolerance:
            return True if self.control > _MARGIN * max(self.error, self.tolerance / 100) else None
        return False

    def __str__(self) -> str:
        return f"error {self.error:.1e}, control {self.control:.1e}"


def refused(backbone: CausalLMBackbone) -> str | None:
    """Why this architecture cannot branch from a shared prompt, by what it declares; None where it might."""
    decoder, config = backbone.decoder, backbone.config
    if getattr(decoder, "_is_stateful", False):
        return "its layers keep a state that runs over the row"
    types = set(getattr(config, "layer_types", None) or ()) | set(getattr(config, "layers_block_type", None) or ())
    if other := sorted(types - _LAYERS):
        return f"it has layers of type {', '.join(other)}"
    if any(isinstance(module, nn.Conv1d) for module in decoder.modules()):
        return "it convolves over the row"
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it has cross-attention"
    if "position_ids" not in inspect.signature(decoder.forward).parameters:
        return "it takes no positions"
    if not getattr(decoder, "_supports_attention_backend", False):
        return "its attention does not go through transformers' attention interface"
    return None


def decide(backbone: CausalLMBackbone, asked: str = "auto") -> None:
    """Set how responses share their prompt, and say so once in the log.

    asked: `auto` takes the first of split attention and a 4-D mask that is proven on this model, else rows of their
        own. A way asked for by name that cannot hold is a `ModelError`.
    """
    if asked == "off":
        backbone.share("off", "asked for")
        return
    ways: tuple[Sharing, ...] = ("split", "mask") if asked == "auto" else (cast(Sharing, asked),)
    reasons: list[str] = []
    if rule := refused(backbone):
        reasons.append(rule)
        ways = ()
    for way in ways:
        reason, held = _try(backbone, way)
        if held:
            backbone.share(way, reason)
            _LOG.info("responses share their prompt (%s): %s", way, reason)
            return
        reasons.append(f"{way}: {reason}")
    found = "; ".join(reasons)
    backbone.share("off", found)
    if asked != "auto":
        raise ModelError(
            f"responses cannot share their prompt by {asked!r} in this model",
            got=found,
            fix="load with sharing='auto' (or 'off', which gives every response a row of its own)",
        )
    _LOG.info("responses get rows of their own: %s", found)


def _try(backbone: CausalLMBackbone, way: Sharing) -> tuple[str, bool]:
    if way == "split" and backbone.native != "sdpa":
        return f"it computes as sdpa does, and the model uses {backbone.native}", False
    try:
        proof = prove(backbone, way)
        if proof.holds is None:  # weights too even for attention to show, as some are at their start
            with _scaled(backbone.decoder):
                proof = prove(backbone, way)
        windows = ""
        if proof.holds:
            with _shrunk(backbone) as shrunk:
                if shrunk:
                    windows = f", and {', '.join(shrunk)} at {_WINDOW}"
                    proof = prove(backbone, way)
    except Exception as error:
        # whatever a family raises here, it would raise in training
        return f"the probe raised {type(error).__name__}: {error}", False
    verdict = {True: "equals separate rows", False: "differs from separate rows", None: "the probe is inconclusive"}
    return f"{verdict[proof.holds]} ({proof}{windows})", proof.holds is True


@torch.no_grad()
def prove(backbone: CausalLMBackbone, way: Sharing) -> Proof:
    """Run the probe; the backbone comes back as it was."""
    before = backbone.sharing, backbone.reason
    training = backbone.training
    device = next(backbone.parameters()).device
    spans = fork(0, _TRUNK, _BRANCHES, first=0)
    layout = Layout(spans, rows=1, width=_TRUNK + sum(_BRANCHES))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, int(backbone.config.vocab_size), (1, layout.width), generator=generator).to(device)
    try:
        backbone.eval()
        backbone.share("off", "probe")
        alone = [backbone.run(input_ids=tokens[:, layout.tokens(number).to(device)]) for number in (1, 2)]
        backbone.share(way, "probe")
        tree = backbone(_batch(tokens, layout), {})  # 1 n d
        control = backbone.run(
            input_ids=tokens,
            attention_mask=_plainly_causal(backbone, layout.width, device),
            position_ids=layout.index.to(device),
        )
    finally:
        backbone.share(*before)
        backbone.train(training)
    size = max(float(states.abs().max()) for states in alone)
    return Proof(
        error=_distance(tree, alone, layout) / size,
        control=_distance(control, alone, layout) / size,
        tolerance=_TOLERANCE.get(backbone.dtype, 1e-4),
    )


def _plainly_causal(backbone: CausalLMBackbone, width: int, device: torch.device) -> object:
    """The mask of a row that knows no tree, so that the second branch sees the first."""
    own = backbone.own_masks(width, device)
    causal = torch.ones(width, width, dtype=torch.bool).tril()[None]  # 1 n n
    if isinstance(own, dict):
        return {name: backbone.dress(causal if mask is None else mask[0], device) for name, mask in own.items()}
    return backbone.dress(causal if own is None else own[0], device)


def _distance(states: Tensor, alone: list[Tensor], layout: Layout) -> float:
    """The largest difference of any state on either path."""
    worst = 0.0
    for number, expected in zip((1, 2), alone, strict=True):
        path = layout.tokens(number).to(states.device)
        difference = (states[0, path].float() - expected[0].float()).abs().max()
        worst = max(worst, float(difference) if difference.isfinite() else float("inf"))
    return worst


def _batch(tokens: Tensor, layout: Layout) -> Batch:
    empty = torch.zeros(0, dtype=torch.long)
    targets = Targets(pairs=empty.reshape(0, 2), own=empty, weights=empty.double(), group=empty)
    return Batch(tokens=tokens, layout=layout, segments=(), units={}, ends=empty.reshape(0, 2), targets=targets)


@contextmanager
def _shrunk(backbone: CausalLMBackbone) -> Iterator[list[str]]:
    """Windows and chunks of a few tokens, for as long as the context lasts; yields what was shrunk."""
    config = backbone.config
    before = {
        name: value
        for name in ("sliding_window", "attention_chunk_size")
        if isinstance(value := getattr(config, name, None), int) and value > _WINDOW
    }
    try:
        for name in before:
            setattr(config, name, _WINDOW)
        yield list(before)
    finally:
        for name, value in before.items():
            setattr(config, name, value)


@contextmanager
@torch.no_grad()
def _scaled(module: nn.Module) -> Iterator[None]:
    """Matrices four times as large for as long as the context lasts: a power of two, so they come back bit for bit."""
    matrices = [value for value in module.parameters() if value.ndim > 1 and value.is_floating_point()]
    try:
        for value in matrices:
            value.mul_(4.0)
        yield
    finally:
        for value in matrices:
            value.mul_(0.25)
