"""A tiny flow model that learns to show the oracle world from nothing, in any modality that can be cut into patches.

A transformer over patches of latents with the prompt's phrases before them, conditioned on time and on the prompt by
adaptive norms (Peebles and Xie, "Scalable diffusion models with transformers", https://arxiv.org/abs/2212.09748).

b samples, n patches, p values of a patch, k latents of a patch, l phrases, s states, d width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from modalign.content import Part
from modalign.roles import Content
from modalign.world.prompts import WORDS

PHRASES: Final = ("", "?", *(f"{name} {word}" for name, word in WORDS))  #: nothing, what is unknown, and what is known
MOST: Final = 8  #: phrases of a prompt
SHIFT: Final = 3.0  #: of times towards noise

_NUMBER: Final = {phrase: number for number, phrase in enumerate(PHRASES)}


def phrases(prompt: str) -> Tensor:
    """The numbers of a prompt's phrases, ``l`` padded with 0: one for each attribute it asks for.

    >>> phrases("Show me this: count two, colour red.").count_nonzero().item()
    2
    """
    said = prompt.partition(":")[2] or prompt
    found = [one.strip(" .\n") for one in said.split(",")] if said.strip() else []
    numbers = [_NUMBER.get(one, 1) for one in found][:MOST]
    return torch.tensor([*numbers, *[0] * (MOST - len(numbers))])


class Canvas(ABC):
    """How media of one modality are cut into patches, and put together again.

    latents: of a patch: as many directions as its reader needs.
    width: of the network that learns to make them.
    seconds: of a patch, one after the other; None where media have no time.
    """

    latents: int
    width: int = 96
    seconds: float | None = None

    @abstractmethod
    def fitted(self, content: Content) -> Tensor:
        """A decoded medium as the depiction makes it; a `DataError` where it is of another size."""

    @abstractmethod
    def patches(self, media: Tensor) -> Tensor:
        """Patches ``b n p`` of media."""

    @abstractmethod
    def parts(self, patches: Tensor) -> list[Part]:
        """The media that patches ``b n p`` are."""


@final
@dataclass(frozen=True, kw_only=True)
class PainterSizes:
    """How large it is.

    patches, latents: of a medium, and of a patch.
    values: of a patch before it is made latent.
    width, depth, heads: of the network.
    """

    patches: int
    latents: int
    values: int
    width: int = 96
    depth: int = 3
    heads: int = 4


@final
class PatchCodec(nn.Module):
    """Patches to latents and back: the leading principal directions of what is shown, in the scale of noise.

    basis: ``k p`` orthonormal rows.
    mean: ``p``.
    scale: what latents are divided by, so that their root mean square is 1.
    """

    def __init__(self, sizes: PainterSizes) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.zeros(sizes.latents, sizes.values), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(sizes.values), requires_grad=False)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    @torch.no_grad()
    def fit(self, patches: Tensor) -> None:
        """Take the directions of examples, ``b n p``."""
        rows = rearrange(patches, "b n p -> (b n) p").double()
        self.mean.copy_(rows.mean(0))
        _, _, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
        self.basis.copy_(directions[: len(self.basis)])
        self.scale.copy_(self.encode(patches).square().mean().sqrt())

    def encode(self, patches: Tensor) -> Tensor:
        """Latents ``b n k`` of patches ``b n p``."""
        return (patches.float() - self.mean) @ self.basis.T / self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Patches ``b n p`` of latents ``b n k``."""
        return (latents * self.scale) @ self.basis + self.mean


@final
class Painter(nn.Module):
    """The network: noisy latents, times and phrases to the flow it predicts."""

    def __init__(self, sizes: PainterSizes) -> None:
        super().__init__()
        d = sizes.width
        self.phrase = nn.Embedding(len(PHRASES), d)
        # as large as that: at 0.02 it never learns where things are
        self.place = nn.Parameter(torch.randn(MOST + sizes.patches, d) * 0.5)
        self.enter = nn.Linear(sizes.latents, d)
        self.time = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.asked = nn.Linear(d, d)
        self.blocks = nn.ModuleList(_Block(d, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(d, elementwise_affine=False)
        self.modulate = nn.Linear(d, 2 * d)
        self.leave = nn.Linear(d, sizes.latents)
        for layer in (self.modulate, self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor, time: Tensor, asked: Tensor) -> Tensor:
        """The flow ``b n k``.

        noisy: ``b n k``.
        time: ``b`` from 0 (clean) to 1 (noise).
        asked: ``b l`` numbers of phrases; or ``b s d`` states of a backbone in the place of the embeddings of the
            first, at most ``l``; nothing is said behind them.
        """
        words, spoken = self._said(asked)  # b l d, b d
        x = torch.cat([words, self.enter(noisy)], 1) + self.place
        given = silu(self.time(_waves(time, x.shape[-1]).to(x)) + self.asked(spoken))  # b d
        for block in self.blocks:
            x = block(x, given)
        shift, scale = self.modulate(given)[:, None].chunk(2, -1)
        return self.leave(self.norm(x[:, MOST:]) * (1 + scale) + shift)

    def _said(self, asked: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors before the patches, ``b l d``, and the sum of those that say something, ``b d``."""
        if not asked.is_floating_point():
            words = self.phrase(asked)
            return words, (words * (asked > 0).to(words)[..., None]).sum(1)
        silent = self.phrase.weight[0].expand(len(asked), MOST - asked.shape[1], -1)
        return torch.cat([asked, silent], 1), asked.sum(1)


@final
class _Block(nn.Module):
    """Attention and two linear layers, each entered and left as the condition says."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, given: Tensor) -> Tensor:
        s1, c1, g1, s2, c2, g2 = self.modulate(given)[:, None].chunk(6, -1)
        q, k, v = rearrange(
            self.qkv(self.norms[0](x) * (1 + c1) + s1), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        mixed = rearrange(scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        x = x + g1 * self.out(mixed)
        hidden = nn.functional.gelu(self.up(self.norms[1](x) * (1 + c2) + s2), approximate="tanh")
        return x + g2 * self.down(hidden)


def _waves(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times, ``b width``."""
    number = torch.arange(width // 2, dtype=torch.float64, device=time.device)
    rates = torch.exp(number * (-math.log(1e4) / (width // 2)))
    angles = time.double()[:, None] * 1000 * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


#: How a painter is taught and aligned in `modalign.world.demonstration`; measured, see docs/generators-measured.md.
LESSON: Final[Mapping[str, object]] = MappingProxyType(
    {
        "sft_steps": 700,
        "sft_learning_rate": 2e-3,
        "dpo_steps": 120,
        "learning_rate": 1e-4,
        "beta": 0.1,
        "pairs": 4096,
        "own_prompts": 384,
        "held_out": False,
    }
)
