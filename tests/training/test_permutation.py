"""The keyed permutation behind the shuffle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits.torch.permutation import Permutation


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    assert sorted(Permutation(n, (seed, epoch))(np.arange(n)).tolist()) == list(range(n))


@given(n=st.integers(1, 10**15), seed=st.integers(0, 2**64 - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_inverse_finds_the_index_of_a_place(n: int, seed: int, data: st.DataObject) -> None:
    indices = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1)), np.int64)
    permutation = Permutation(n, (seed, 2))
    assert permutation.inverse(permutation(indices)).tolist() == indices.tolist()


def test_any_element_at_once() -> None:
    permutation = Permutation(10_000, (1, 2))
    whole = permutation(np.arange(10_000))
    picked = np.array([9_999, 0, 1234, 1234])
    assert permutation(picked).tolist() == whole[picked].tolist()


def test_huge_domains_need_no_memory() -> None:
    n = 10**15
    places = Permutation(n, (0, 0))(np.arange(n - 1000, n))
    assert len(set(places.tolist())) == 1000
    assert places.min() >= 0
    assert places.max() < n
    assert abs(places.mean() / n - 0.5) < 0.05


def test_the_order_of_a_seed_never_changes() -> None:
    """Saved training states depend on it."""
    assert Permutation(11, (0, 0))(np.arange(11)).tolist() == [2, 3, 0, 10, 6, 1, 9, 5, 8, 4, 7]
    assert Permutation(10**6, (7, 3))(np.arange(5)).tolist() == [
        868204,
        187029,
        11137,
        49472,
        502835,
    ]


@pytest.mark.parametrize("n", [2, 5, 64, 1000])
def test_places_are_uniform_over_seeds(n: int) -> None:
    """Chi-square of where element 0, and of where the last one, lands; at 6 sigma."""
    draws, bins = 4000, min(n, 16)
    for element in (0, n - 1):
        index = np.array([element])
        places = [int(Permutation(n, (seed, 0))(index)[0]) for seed in range(draws)]
        observed = np.bincount([p * bins // n for p in places], minlength=bins)
        widths = np.bincount(np.arange(n) * bins // n, minlength=bins)
        expected = draws * widths / n
        chi2 = float(((observed - expected) ** 2 / expected).sum())
        assert chi2 < (bins - 1) + 6 * np.sqrt(2 * (bins - 1))


def test_neighbours_part_and_epochs_differ() -> None:
    n = 5000
    first, second = (Permutation(n, (3, epoch))(np.arange(n)) for epoch in (0, 1))
    assert (first == second).sum() < 10
    assert (np.abs(np.diff(first)) == 1).sum() < 15
    assert abs(np.corrcoef(np.arange(n), first)[0, 1]) < 0.1
