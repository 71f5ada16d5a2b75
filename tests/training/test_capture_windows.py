"""Windows in every accepted shape, and the errors for those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparselogits.capture import WindowStream
from sparselogits.errors import CacheIOError, InvalidArgumentError

ARRAY = np.arange(12, dtype=np.int32).reshape(3, 4)


def tokens(stream: WindowStream) -> list[list[int]]:
    return [window.tokens.tolist() for window in stream]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_all_integer_dtypes_are_the_same_windows(dtype: type) -> None:
    assert tokens(WindowStream(ARRAY.astype(dtype), vocab_size=12)) == ARRAY.tolist()


def test_file_list_generator_and_tensor_are_the_same_windows(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", ARRAY)
    sources: list[Any] = [str(tmp_path / "w.npy"), tmp_path / "w.npy", list(ARRAY)]
    sources += [(row for row in ARRAY), torch.from_numpy(ARRAY), ARRAY.tolist()]
    for source in sources:
        assert tokens(WindowStream(source, vocab_size=12)) == ARRAY.tolist()


def test_ragged_and_empty_windows() -> None:
    stream = WindowStream([[1, 2, 3], [], np.array([4])], vocab_size=5)
    assert tokens(stream) == [[1, 2, 3], [], [4]]
    assert stream.num_windows == 3
    assert stream.num_positions is None
    assert tokens(WindowStream(np.empty((2, 0), np.int64), vocab_size=5)) == [[], []]
    assert tokens(WindowStream(np.empty((0, 4), np.int64), vocab_size=5)) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([[1, 2], [3, 12]], r"window 1 has token id 12 at position 1, outside \[0, 12\)"),
        ([[1, -2]], r"window 0 has token id -2 at position 1"),
        ([np.array([2**63], np.uint64)], r"window 0 has token id 9223372036854775808"),
        ([[1.0, 2.0]], "window 0 must hold integers, got dtype float64"),
        ([[True]], "window 0 must hold integers, got dtype bool"),
        ([[[1]]], r"window 0 must be 1-D, got shape \(1, 1\)"),
        ([[0] * 9], "window 0 has 9 tokens, more than the model's context of 8"),
        ([0, 1], r"window 0 must be 1-D, got shape \(\)"),
    ],
)
def test_a_wrong_window_is_named(source: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        list(WindowStream(source, vocab_size=12, max_length=8))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ARRAY.astype(np.float32), "windows must hold integers, got dtype float32"),
        (ARRAY.ravel(), r"windows must be an \(N, S\) array, got shape \(12,\)"),
        (np.zeros((2, 9), np.int64), "more than the model's context of 8"),
        (ARRAY + 1, "window 2 has token id 12 at position 3"),
        (ARRAY - 1, "window 0 has token id -1 at position 0"),
        (17, "windows must be an array, a path or an iterable"),
    ],
)
def test_a_wrong_array_is_refused_at_once(source: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        WindowStream(source, vocab_size=12, max_length=8)


def test_files_that_are_no_window_array(tmp_path: Path) -> None:
    with pytest.raises(CacheIOError, match=r"cannot read .*none\.npy"):
        WindowStream(tmp_path / "none.npy", vocab_size=12)
    (tmp_path / "text.npy").write_text("not an array")
    with pytest.raises(InvalidArgumentError, match=r"is not a \.npy array"):
        WindowStream(tmp_path / "text.npy", vocab_size=12)
    np.savez(tmp_path / "two.npz", a=ARRAY, b=ARRAY)
    with pytest.raises(InvalidArgumentError, match="is an archive"):
        WindowStream(tmp_path / "two.npz", vocab_size=12)


def test_sequence_ids_are_checked() -> None:
    ids = [5, 2**64 - 1, 0]
    assert [w.sequence_id for w in WindowStream(ARRAY, vocab_size=12, sequence_ids=ids)] == ids
    for wrong, message in [
        ([1, 2], "sequence_ids has 2 items for 3 windows"),
        ([1, 2, 1], "sequence_id 1 occurs more than once"),
        ([1, 2, -1], r"sequence_id -1 is outside \[0, 2\^64\)"),
        ([1, 2, 2**64], "sequence_id 18446744073709551616 is outside"),
        ([1, 2, 3.0], "sequence_ids must be integers, got 3.0"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            WindowStream(ARRAY, vocab_size=12, sequence_ids=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="sequence_ids has 1 items, but there are more"):
        list(WindowStream(iter(ARRAY), vocab_size=12, sequence_ids=[3]))


def test_masks_are_checked() -> None:
    mask = ARRAY % 2 == 0
    stream = WindowStream(ARRAY, vocab_size=12, targets_mask=mask)
    assert [window.captured.tolist() for window in stream] == mask.tolist()
    for wrong, message in [
        (mask[:2], "targets_mask has 2 items for 3 windows"),
        (mask.astype(np.int64), "targets_mask must hold bool, got dtype int64"),
        ([[True] * 4, [True] * 3, [True] * 4], r"of window 1 has shape \(3,\), the window has 4"),
        ([[1, 1, 1, 1]] * 3, "of window 0 must be bool, got dtype int64"),
        (iter(mask[:1]), "targets_mask ends before window 1"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            list(WindowStream(ARRAY, vocab_size=12, targets_mask=wrong))


def test_batches_leave_out_what_is_skipped() -> None:
    stream = WindowStream(ARRAY, vocab_size=12)
    batches = list(stream.batches(2, skip=lambda window: window.sequence_id == 1))
    assert [[window.index for window in batch] for batch in batches] == [[0, 2]]
