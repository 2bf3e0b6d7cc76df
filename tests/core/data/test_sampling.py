"""The order of samples: a bijection for every size, even, and the same in every process."""

import subprocess
import sys
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.data import permutation


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63), epoch=st.integers(0, 1000), n=st.integers(1, 700))
def test_every_index_is_visited_once(seed: int, epoch: int, n: int) -> None:
    order = permutation(seed, epoch, n)
    assert sorted(order(index) for index in range(n)) == list(range(n))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 4095, 4097, 20_000])
def test_sizes_around_a_power_of_two_are_visited_whole(n: int) -> None:
    order = permutation(3, 1, n)
    assert len({order(index) for index in range(n)}) == n


def test_a_huge_set_needs_no_memory() -> None:
    order = permutation(0, 0, 10**12)
    assert len({order(index) for index in range(1000)}) == 1000


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {
        tuple(permutation(seed, epoch, 100)(index) for index in range(100)) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


def test_the_orders_of_three_rows_are_equally_likely() -> None:
    seen = Counter(tuple(permutation(seed, 0, 3)(index) for index in range(3)) for seed in range(1200))
    # six orders, 200 expected of each: chi-square with 5 degrees of freedom is below 20.5 with probability 0.999
    statistic = sum((seen[order] - 200) ** 2 / 200 for order in permutations(range(3)))
    assert statistic < 20.5


def test_where_a_row_goes_is_even() -> None:
    n, trials = 50, 2000
    seen = Counter(permutation(seed, 7, n)(17) for seed in range(trials))
    # 49 degrees of freedom: below 85.4 with probability 0.999
    statistic = sum((seen[place] - trials / n) ** 2 / (trials / n) for place in range(n))
    assert statistic < 85.4


def test_neighbours_do_not_stay_together() -> None:
    order = permutation(1, 0, 1000)
    together = sum(abs(order(index + 1) - order(index)) == 1 for index in range(999))
    assert together < 12  # 2 expected of a random order


GOLDEN = [76, 25, 44, 49, 51]


def test_the_order_is_the_same_for_ever() -> None:
    # a stored run resumes by position: these numbers may never change
    assert [permutation(42, 3, 100)(index) for index in range(5)] == GOLDEN


def test_the_order_is_the_same_in_another_process() -> None:
    program = "from modalign.data.sampling import permutation as p; print([p(42, 3, 100)(i) for i in range(5)])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(GOLDEN)


def test_what_is_outside_is_refused() -> None:
    with pytest.raises(IndexError, match=r"\[0, 5\)"):
        permutation(0, 0, 5)(5)
    with pytest.raises(ValueError, match="at least 1"):
        permutation(0, 0, 0)
