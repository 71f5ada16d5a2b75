"""The shuffle in two levels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits.torch.block_shuffle import BlockShuffle


@given(
    n=st.integers(1, 600),
    block=st.integers(1, 80),
    open_blocks=st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=80, deadline=None)
def test_is_a_bijection(n: int, block: int, open_blocks: int, seed: int) -> None:
    shuffle = BlockShuffle(n, block, open_blocks, (seed, 1))
    assert sorted(shuffle(np.arange(n)).tolist()) == list(range(n))


@given(n=st.integers(1, 600), block=st.integers(1, 80), open_blocks=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_few_blocks_are_open_at_once(n: int, block: int, open_blocks: int) -> None:
    blocks = BlockShuffle(n, block, open_blocks, (3, 0))(np.arange(n)) // block
    opened: list[int] = []
    for place, number in enumerate(blocks.tolist()):
        if number not in opened:
            opened.append(number)
        started = {b for b in opened if (blocks[place:] == b).any()}  # open until their last one
        assert len(started) <= open_blocks


@given(n=st.integers(1, 10**15), seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_element_at_once(n: int, seed: int, data: st.DataObject) -> None:
    shuffle = BlockShuffle(n, 1000, 8, (seed, 0))
    start = data.draw(st.integers(0, n - 1))
    places = np.arange(start, min(n, start + 20_000))
    elements = shuffle(places)
    assert len(set(elements.tolist())) == len(places)
    assert 0 <= elements.min() <= elements.max() < n
    picked = places[[0, -1, len(places) // 2]]
    assert shuffle(picked).tolist() == elements[picked - start].tolist()


def test_both_levels_shuffle_and_seeds_differ() -> None:
    n, block, open_blocks = 4000, 50, 4
    order = BlockShuffle(n, block, open_blocks, (0, 0))(np.arange(n))
    group = order[: block * open_blocks]
    taken = np.unique(group // block)
    assert len(taken) == open_blocks  # whole blocks, not neighbours
    assert (np.diff(taken) > 1).any()
    assert len(np.unique(group[:block] // block)) == open_blocks  # their elements mixed at once
    other = BlockShuffle(n, block, open_blocks, (0, 1))(np.arange(n))
    assert (order == other).sum() < 20


def test_every_element_may_come_first() -> None:
    """Also those of the short last block; chi-square at 6 sigma."""
    n, draws = 11, 3000
    zero = np.zeros(1, np.int64)
    firsts = [int(BlockShuffle(n, 4, 2, (seed, 0))(zero)[0]) for seed in range(draws)]
    observed = np.bincount(np.array(firsts) // 4, minlength=3)
    # The first group is two of three blocks: 8 elements without the short block, else 7.
    with_short = [1 / 3 * 4 / 8 + 1 / 3 * 4 / 7] * 2 + [2 / 3 * 3 / 7]
    expected = draws * np.array(with_short)
    chi2 = float(((observed - expected) ** 2 / expected).sum())
    assert chi2 < 2 + 6 * np.sqrt(2 * 2)


def test_the_order_of_a_seed_never_changes() -> None:
    """Saved training states depend on it."""
    shuffle = BlockShuffle(11, 4, 2, (0, 0))
    assert shuffle(np.arange(11)).tolist() == [5, 7, 6, 2, 0, 3, 4, 1, 9, 8, 10]


@pytest.mark.parametrize("block", [1, 11, 20])
def test_blocks_of_one_or_of_all_are_a_plain_shuffle(block: int) -> None:
    order = BlockShuffle(11, block, 1, (5, 0))(np.arange(11)).tolist()
    assert sorted(order) == list(range(11))
    assert order != list(range(11))
