"""Window sets, given and packed, on their way into a capture."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.capture import Window, WindowStream
from sparselogits.capture.window_set import is_window_set
from sparselogits.tokens import GivenWindows, WindowSet, pack

ARRAY = np.arange(12, dtype=np.int32).reshape(3, 4)
IDS = [5, 2**64 - 1, 0]


def as_array(path: Path) -> GivenWindows:
    return GivenWindows(ARRAY, sequence_ids=IDS, targets_mask=ARRAY % 3 == 0)


def as_file(path: Path) -> GivenWindows:
    np.save(path / "w.npy", ARRAY)
    np.save(path / "m.npy", ARRAY % 3 == 0)
    return GivenWindows(path / "w.npy", sequence_ids=IDS, targets_mask=str(path / "m.npy"))


def as_lists(path: Path) -> GivenWindows:
    mask = (ARRAY % 3 == 0).tolist()
    return GivenWindows(ARRAY.tolist(), sequence_ids=np.array(IDS, np.uint64), targets_mask=mask)


@pytest.mark.parametrize("make", [as_array, as_file, as_lists])
def test_given_windows_are_a_set(make: Callable[[Path], GivenWindows], tmp_path: Path) -> None:
    made = make(tmp_path)
    for windows in (made, pickle.loads(pickle.dumps(made))):
        assert is_window_set(windows)
        assert [window.tokens.tolist() for window in windows] == ARRAY.tolist()
        assert [window.sequence_id for window in windows] == IDS
        assert [w.captured.tolist() for w in windows] == (ARRAY % 3 == 0).tolist()
        part = windows.select(range(1, 3))
        assert [(window.index, window.sequence_id) for window in part] == [(1, IDS[1]), (2, IDS[2])]
        assert part.description == windows.description
        assert windows.content_digest() == as_array(tmp_path).content_digest()


def test_a_file_of_windows_is_not_pickled_with_its_tokens(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.zeros((1000, 100), np.uint16))
    windows = GivenWindows(tmp_path / "w.npy")
    assert (len(windows), windows.num_positions) == (1000, 100_000)
    assert len(pickle.dumps(windows)) < 2000
    assert windows.select(range(3)).num_positions == 300


def test_given_windows_refuse_what_has_no_random_access() -> None:
    with pytest.raises(sl.InvalidArgumentError, match="windows must have a length and random acc"):
        GivenWindows(iter(ARRAY))
    with pytest.raises(sl.InvalidArgumentError, match="targets_mask must have a length"):
        GivenWindows(ARRAY, targets_mask=iter(ARRAY % 2 == 0))
    with pytest.raises(sl.InvalidArgumentError, match="sequence_ids has 2 items for 3 windows"):
        GivenWindows(ARRAY, sequence_ids=[1, 2])
    with pytest.raises(sl.InvalidArgumentError, match="targets_mask has 1 items for 3 windows"):
        GivenWindows(ARRAY, targets_mask=ARRAY[:1] % 2 == 0)


def test_a_stream_takes_a_set_with_its_ids_masks_and_starts() -> None:
    windows = pack(corpus.DOCUMENTS, 4, "concat-documents", first_sequence_id=7)
    stream = WindowStream(windows, vocab_size=corpus.VOCAB)
    assert (stream.num_windows, stream.num_positions) == (4, 16)
    for seen, made in zip(stream, windows, strict=True):
        assert (seen.index, seen.sequence_id) == (made.index, made.sequence_id)
        assert seen.tokens.tolist() == made.tokens.tolist()
        assert seen.document_starts is not None
        assert seen.document_starts.tolist() == made.document_starts.tolist()
    given = WindowStream(as_array(Path()), vocab_size=12)
    assert [window.sequence_id for window in given] == IDS
    assert [window.captured.tolist() for window in given] == (ARRAY % 3 == 0).tolist()


def test_ids_and_masks_beside_a_set_replace_its_own() -> None:
    windows = pack(corpus.DOCUMENTS, 4).select(range(1, 3))
    mask = [[True, False, True, False]] * 2
    stream = WindowStream(windows, vocab_size=99, sequence_ids=[50, 60], targets_mask=mask)
    assert [window.sequence_id for window in stream] == [50, 60]
    assert [window.captured.tolist() for window in stream] == mask
    assert [window.index for window in stream] == [1, 2]
    with pytest.raises(sl.InvalidArgumentError, match="sequence_ids has 4 items for 2 windows"):
        WindowStream(windows, vocab_size=99, sequence_ids=[1, 2, 3, 4])


def test_a_stream_checks_the_windows_of_a_set() -> None:
    windows = pack(corpus.DOCUMENTS, 4)
    with pytest.raises(sl.InvalidArgumentError, match=r"window 0 has 4 tokens, more than .* of 3"):
        list(WindowStream(windows, vocab_size=99, max_length=3))
    with pytest.raises(sl.InvalidArgumentError, match=r"window 1 has token id 7 at position 0"):
        list(WindowStream(windows, vocab_size=7))


class OneWindow:
    """A window set of somebody else's."""

    def __init__(self, starts: Any) -> None:
        self._starts = starts

    @property
    def description(self) -> dict[str, str]:
        return {"token_source": "one window"}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Window:
        tokens = np.arange(4)
        return Window(index, index, tokens, np.ones(4, bool), self._starts)

    def select(self, windows: range) -> WindowSet:
        return self

    def content_digest(self) -> str:
        return "0" * 16


@pytest.mark.parametrize("starts", [None, np.array([0]), np.array([0, 1, 3], np.int32)])
def test_a_set_of_somebody_else_is_taken(starts: Any) -> None:
    (window,) = WindowStream(OneWindow(starts), vocab_size=4)
    assert window.document_starts is starts


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        ([1], r"document_starts of window 0 must begin with 0, got \[1\]"),
        ([], r"must begin with 0, got \[\]"),
        ([0, 4], r"must ascend and lie in \[0, 4\), got \[0, 4\]"),
        ([0, 2, 2], "must ascend"),
        ([0, 3, 1], "must ascend"),
        ([0.0, 1.0], "must be 1-D integers, got shape .* float64"),
        ([[0]], r"must be 1-D integers, got shape \(1, 1\)"),
    ],
)
def test_wrong_document_starts_are_named(starts: Any, message: str) -> None:
    array = np.array(starts) if starts else np.empty(0, np.int64)
    with pytest.raises(sl.InvalidArgumentError, match=message):
        list(WindowStream(OneWindow(array), vocab_size=4))


def test_names_are_found_where_they_are_promised() -> None:
    for name in sl.tokens.__all__:
        assert getattr(sl.tokens, name) is not None
    assert sl.tokens.pack is pack
