"""Draws: seeded, shared by key, spread by lot, with prompts dropped at their rate."""

from __future__ import annotations

import torch

from modalign.draws import DrawConfig, DrawKey, Draws


def key(number: int) -> DrawKey:
    return DrawKey(comparison=f"row-{number}", modality="m", occurrence=0)


def test_equal_keys_draw_equally_and_others_do_not() -> None:
    draws = Draws(seed=3, count=2)
    assert torch.equal(draws.noise(key(0), 1, (4,)), Draws(seed=3).noise(key(0), 1, (4,)))
    others = (draws.noise(key(1), 1, (4,)), draws.noise(key(0), 0, (4,)), Draws(seed=4).noise(key(0), 1, (4,)))
    assert not any(torch.equal(draws.noise(key(0), 1, (4,)), one) for one in others)
    assert not torch.equal(draws.noise(key(0), 0, (4,)), Draws(seed=3, epoch=1).noise(key(0), 0, (4,)))


def test_stratified_quantiles_lie_each_in_a_part_of_its_own_whatever_the_order() -> None:
    draws, keys = Draws(times="stratified"), [(key(number), 0) for number in range(16)]
    found = draws.quantiles(keys)
    assert sorted((found * 16).floor().tolist()) == list(range(16))
    assert torch.equal(draws.quantiles(keys[::-1]), found.flip(0))
    twice = draws.quantiles([one for one in keys for _ in range(2)])  # chosen and rejected share theirs
    assert torch.equal(twice, found.repeat_interleave(2))


def test_prompts_are_dropped_at_their_rate_and_in_training_only() -> None:
    config = DrawConfig(prompt_dropout=0.25)
    draws = Draws.of(config, seed=0)
    share = sum(draws.drops(key(number), 0) for number in range(2000)) / 2000
    assert abs(share - 0.25) < 0.03  # three standard errors: sqrt(.25 * .75 / 2000) = .0097
    assert not any(Draws.of(config, seed=0, dropout=False).drops(key(number), 0) for number in range(50))
