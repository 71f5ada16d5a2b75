"""Samples of sequences: every position where it belongs, in one sample, and no other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselogits.torch.batch_plan import TO_THE_END
from sparselogits.torch.windows import CutSequences, JoinedSequences, WholeSequences, Windows

Positions = list[tuple[int, int]]  # (sequence, position)


def samples_of(windows: Windows, samples: list[int] | None = None) -> list[Positions]:
    """The positions of samples, all of them where none are named."""
    named = list(range(windows.num_samples)) if samples is None else samples
    pieces = windows.pieces(np.array(named, np.int64))
    assert (pieces.counts >= 1).all()
    found, at = [], 0
    for count in pieces.counts.tolist():
        positions = []
        for piece in range(at, at + count):
            sequence = int(pieces.sequences[piece])
            start, stop = int(pieces.starts[piece]), int(pieces.stops[piece])
            assert start < stop
            positions += [(sequence, position) for position in range(start, stop)]
        found.append(positions)
        at += count
    assert at == len(pieces.sequences)
    return found


lengths_and_selection = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12)


@given(drawn=lengths_and_selection, window=st.integers(1, 15), drop=st.booleans())
@settings(max_examples=100, deadline=None)
def test_cut_sequences(drawn: list[tuple[int, bool]], window: int, drop: bool) -> None:
    selection = np.array([i for i, (_, taken) in enumerate(drawn) if taken], np.int64)
    lengths = np.array([length for length, taken in drawn if taken], np.int64)
    expected = []
    for sequence, length in zip(selection.tolist(), lengths.tolist(), strict=True):
        for start in range(0, length, window):
            part = [(sequence, p) for p in range(start, min(start + window, length))]
            if len(part) == window or not drop:
                expected.append(part)
    windows = CutSequences(lengths, selection, window, drop)
    assert samples_of(windows) == expected
    backwards = list(range(len(expected)))[::-1]
    assert samples_of(windows, backwards) == expected[::-1]


@given(drawn=lengths_and_selection, window=st.integers(1, 40), drop=st.booleans())
@settings(max_examples=100, deadline=None)
def test_joined_sequences(drawn: list[tuple[int, bool]], window: int, drop: bool) -> None:
    selection = np.array([i for i, (_, taken) in enumerate(drawn) if taken], np.int64)
    lengths = np.array([length for length, taken in drawn if taken], np.int64)
    line = [
        (sequence, p)
        for sequence, length in zip(selection.tolist(), lengths.tolist(), strict=True)
        for p in range(length)
    ]
    expected = [line[at : at + window] for at in range(0, len(line), window)]
    if drop:
        expected = [sample for sample in expected if len(sample) == window]
    windows = JoinedSequences(lengths, selection, window, drop)
    assert samples_of(windows) == expected
    backwards = list(range(len(expected)))[::-1]
    assert samples_of(windows, backwards) == expected[::-1]


def test_without_a_selection_all_sequences_are_meant() -> None:
    lengths = np.array([3, 0, 2], np.int64)
    everything = np.arange(3)
    for kind in (CutSequences, JoinedSequences):
        with_all, without = kind(lengths, everything, 2, False), kind(lengths, None, 2, False)
        assert samples_of(with_all) == samples_of(without)


def test_whole_sequences_need_no_lengths() -> None:
    pieces = WholeSequences(5, None).pieces(np.array([4, 0]))
    assert pieces.sequences.tolist() == [4, 0]
    assert pieces.starts.tolist() == [0, 0]
    assert pieces.stops.tolist() == [TO_THE_END, TO_THE_END]
    chosen = WholeSequences(5, np.array([1, 3]))
    assert chosen.num_samples == 2
    assert chosen.pieces(np.array([1])).sequences.tolist() == [3]


@pytest.mark.parametrize("kind", [CutSequences, JoinedSequences])
def test_a_window_longer_than_everything(kind: type[CutSequences] | type[JoinedSequences]) -> None:
    lengths = np.array([4], np.int64)
    assert kind(lengths, None, 5, True).num_samples == 0
    assert samples_of(kind(lengths, None, 5, False)) == [[(0, p) for p in range(4)]]
