"""A capture takes packed windows, and the cache says how they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import token_corpora as corpus

import sparselogits as sl
from sparselogits.tokens import GivenWindows, pack


@pytest.fixture(scope="module")
def teacher() -> Any:
    return corpus.teacher()


def test_the_cache_holds_the_windows_and_their_making(teacher: Any, tmp_path: Path) -> None:
    windows = pack(corpus.DOCUMENTS, 4, bos=corpus.BOS, keep_short=True, first_sequence_id=40)
    cache = sl.capture(teacher, windows, tmp_path / "cache", rounds=3, progress=False)
    assert cache.sequence_ids.tolist() == [40, 41, 42, 43, 44, 45]
    for index, window in enumerate(windows):
        assert cache[index].input_ids.tolist() == window.tokens.tolist()
    for key, value in windows.description.items():
        assert cache.metadata[key] == value


def test_parts_are_captured_as_in_the_whole(teacher: Any, tmp_path: Path) -> None:
    windows = pack(corpus.DOCUMENTS, 6, "documents", eos=corpus.EOS)
    options: dict[str, Any] = {"rounds": 5, "batch_size": 1, "progress": False}
    whole = sl.capture(teacher, windows, tmp_path / "whole", **options)
    parts = []
    for start, stop in ((0, 2), (2, 3), (3, len(windows))):
        part = windows.select(range(start, stop))
        sl.capture(teacher, part, tmp_path / f"{start}", **options)
        parts.append(tmp_path / f"{start}")
    sl.merge(parts, tmp_path / "merged")
    merged = sl.open(tmp_path / "merged")
    assert merged.sequence_ids.tolist() == whole.sequence_ids.tolist()
    assert merged.metadata == whole.metadata
    for index in range(len(whole)):
        assert merged[index].token_ids.tolist() == whole[index].token_ids.tolist()
        assert merged[index].counts.tolist() == whole[index].counts.tolist()


def test_a_set_of_given_windows_is_captured_as_the_array_is(teacher: Any, tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint16).reshape(3, 4)
    options: dict[str, Any] = {"rounds": 5, "progress": False}
    ids = [9, 8, 7]
    plain = sl.capture(teacher, array, tmp_path / "a", sequence_ids=ids, **options)
    made = sl.capture(teacher, GivenWindows(array, sequence_ids=ids), tmp_path / "b", **options)
    assert made.sequence_ids.tolist() == plain.sequence_ids.tolist()
    for index in range(3):
        assert made[index].token_ids.tolist() == plain[index].token_ids.tolist()
    assert made.metadata == plain.metadata


def test_another_corpus_does_not_go_on_with_a_cache(teacher: Any, tmp_path: Path) -> None:
    sl.capture(teacher, pack(corpus.DOCUMENTS, 4), tmp_path / "c", rounds=2, progress=False)
    more = [*corpus.DOCUMENTS, [3, 4, 5, 6]]
    with pytest.raises(sl.MismatchError, match="token_source"):
        sl.capture(teacher, pack(more, 4), tmp_path / "c", rounds=2, progress=False)
