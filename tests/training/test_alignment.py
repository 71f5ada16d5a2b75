"""A student's tokens are the teacher's, or training does not begin: what differs is said first."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from token_windows import (
    BOS,
    LENGTH,
    PAD,
    SECOND,
    TEACHER,
    VOCAB,
    documents,
    letters_as_tokens,
    packed,
    stream,
    write,
)

import sparselogits as sl
from sparselogits.torch import SparseLogitDataset


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, sl.Cache]:
    """The teacher's windows, with the tokens stored and without."""
    directory = tmp_path_factory.mktemp("alignment")
    return {stored: write(directory / str(stored), TEACHER, stored) for stored in (False, True)}


def shifted_left(windows: list[np.ndarray]) -> list[np.ndarray]:
    """What `labels` are: the token after each one; the stream goes on in the next window."""
    tokens = np.concatenate([*windows, [77]])
    return [tokens[1:][i : i + LENGTH] for i in range(0, len(tokens) - LENGTH, LENGTH)]


def shifted_right(windows: list[np.ndarray]) -> list[np.ndarray]:
    """A BOS in front of every window, and the last token gone."""
    return [np.concatenate([[BOS], window[:-1]]) for window in windows]


def labels(windows: list[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([window[1:], [-100]]) for window in windows]


def one_token_changed(windows: list[np.ndarray]) -> list[np.ndarray]:
    changed = [window.copy() for window in windows]
    changed[7][13] = 99
    return changed


def swapped(windows: list[np.ndarray]) -> list[np.ndarray]:
    return [*windows[:4], windows[9], *windows[5:9], windows[4], *windows[10:]]


# What the student brings, the index at which it is found out, what the message says in a cache with
# the tokens stored and in one without.
Case = tuple[Callable[[list[np.ndarray]], Any], int, str, str]
SHIFT_LEFT = "shifted by 1 to the left, as labels are"
SHIFT_RIGHT = "shifted by 1 to the right, as behind an added first token"
UNKNOWN = "not those of another sequence of the cache, nor shifted"
CASES: dict[str, Case] = {
    "shifted left": (
        shifted_left,
        0,
        f"token 0 is {SECOND} and was 1 .*{SHIFT_LEFT}",
        f"{SHIFT_LEFT}: the teacher read them behind 1,",
    ),
    "shifted right": (
        shifted_right,
        0,
        f"token 1 is 1 and was {SECOND} .*{SHIFT_RIGHT}",
        f"{SHIFT_RIGHT}: the teacher read them without the first, before {TEACHER[0][-1]}",
    ),
    "labels": (
        labels,
        0,
        f"token 0 is {SECOND} and was 1 .*Token 23 is -100, no token id: labels.*{SHIFT_LEFT}",
        f"fingerprint none, .*Token 23 is -100, no token id: labels.*{SHIFT_LEFT}",
    ),
    "shifted by three": (
        lambda windows: packed(np.concatenate(windows)[3:]),
        0,
        "shifted by 3 to the left",
        UNKNOWN,
    ),
    "cut at other lengths": (
        lambda windows: packed(np.concatenate(windows), 16),
        0,
        r"16 tokens, not 24; the first 16 agree.*lack 0 at the start and 8 at the end: truncated",
        "16 tokens, not 24.*The teacher read 8 more, which the cache does not store",
    ),
    "cut at twice the length": (
        lambda windows: packed(np.concatenate(windows), 48),
        0,
        "48 tokens, not 24; the first 24 agree.*0 tokens before and 24 behind: another padding",
        "48 tokens, not 24.*0 tokens before and 24 behind: another padding or packing",
    ),
    "documents in another order": (
        lambda windows: packed(stream(documents()[::-1])),
        0,
        rf"token \d+ is \d+ and was \d+ .*{UNKNOWN}",
        f"fingerprint [0-9a-f]{{16}}, not [0-9a-f]{{16}} .*{UNKNOWN}",
    ),
    "padded on the right": (
        lambda windows: [np.append(window, [PAD] * 8) for window in windows],
        0,
        "32 tokens, not 24; the first 24 agree.*with 0 tokens before and 8 behind",
        "32 tokens, not 24.*with 0 tokens before and 8 behind: another padding",
    ),
    "padded on the left": (
        lambda windows: [np.append([PAD] * 8, window) for window in windows],
        0,
        "token 0 is 0 and was 1 .*with 8 tokens before and 0 behind",
        "32 tokens, not 24.*with 8 tokens before and 0 behind: another padding",
    ),
    "truncated": (
        lambda windows: [window[:-1] for window in windows],
        0,
        "23 tokens, not 24; the first 23 agree.*lack 0 at the start and 1 at the end",
        "23 tokens, not 24.*The teacher read 1 more",
    ),
    "without its BOS": (
        lambda windows: [window[1:] for window in windows],
        0,
        f"token 0 is {SECOND} and was 1 .*lack 1 at the start and 0 at the end",
        "The teacher read 1 more",
    ),
    "nothing": (
        lambda windows: [window[:0] for window in windows],
        0,
        "0 tokens, not 24",
        "0 tokens, not 24",
    ),
    "another tokenizer": (
        lambda windows: packed(stream(documents(), letters_as_tokens)),
        0,
        rf"token 1 is 1\d\d and was {SECOND} \(24 tokens; 23 of 24 differ\)",
        UNKNOWN,
    ),
    "another tokenizer of more tokens": (
        lambda windows: [window + VOCAB for window in windows],
        0,
        "token 0 is 201 and was 1 .*Token 0 is 201 and the cache's vocab_size 200: another token",
        "Token 0 is 201 and the cache's vocab_size 200: another tokenizer",
    ),
    "two sequences exchanged": (
        swapped,
        4,
        r"They are the tokens of sequence_id 1009 \(index 9\): the dataset is in another order",
        r"They are the tokens of sequence_id 1009 \(index 9\): the dataset is in another order",
    ),
    "backwards": (
        lambda windows: windows[::-1],
        0,
        rf"the tokens of sequence_id {1000 + len(TEACHER) - 1} .* in another order",
        rf"the tokens of sequence_id {1000 + len(TEACHER) - 1} .* in another order",
    ),
    "one token in the middle": (
        one_token_changed,
        7,
        rf"token 13 is 99 and was {TEACHER[7][13]} \(24 tokens; 1 of 24 differ\).*{UNKNOWN}",
        f"fingerprint .*{UNKNOWN}",
    ),
    "a number above all tokens": (
        lambda windows: [window + 2**40 for window in windows],
        0,
        "token 0 is 1099511627777 and was 1 ",
        "fingerprint none",
    ),
}


@pytest.mark.parametrize("stored", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("name", CASES)
def test_other_tokens_are_refused_and_described(
    caches: dict[bool, sl.Cache], stored: bool, name: str
) -> None:
    change, index, with_tokens, without = CASES[name]
    cache, given = caches[stored], change(TEACHER)
    with pytest.raises(sl.FingerprintMismatchError) as caught:
        sl.check_alignment(cache, given)
    message = str(caught.value)
    assert message.startswith(f"sequence_id {1000 + index} (index {index}): ")
    assert re.search(with_tokens if stored else without, message), message
    if len(given) >= len(cache):
        with pytest.raises(sl.FingerprintMismatchError) as caught:
            list(SparseLogitDataset(cache, 4, shuffle=False, input_ids=given))
        assert str(caught.value) == message


@pytest.mark.parametrize("stored", [False, True])
def test_a_shuffled_copy_is_refused_whatever_the_order_of_reading(
    caches: dict[bool, sl.Cache], stored: bool
) -> None:
    given = [TEACHER[i] for i in np.random.default_rng(3).permutation(len(TEACHER))]
    for seed in range(3):
        with pytest.raises(sl.FingerprintMismatchError, match="the dataset is in another order"):
            list(SparseLogitDataset(caches[stored], 4, seed=seed, input_ids=given))


def test_too_few_windows_are_refused(caches: dict[bool, sl.Cache]) -> None:
    with pytest.raises(sl.FingerprintMismatchError, match=r"5 windows .* sequence_id 1005 \(index"):
        sl.check_alignment(caches[False], TEACHER[:5])


SAME = {
    "a list of arrays": lambda: TEACHER,
    "lists": lambda: [window.tolist() for window in TEACHER],
    "tuples": lambda: tuple(tuple(window.tolist()) for window in TEACHER),
    "a matrix": lambda: np.stack(TEACHER),
    "Fortran order": lambda: np.asfortranarray(np.stack(TEACHER)),
    "a strided view": lambda: np.repeat(np.stack(TEACHER), 2, axis=1)[:, ::2],
    "int16": lambda: np.stack(TEACHER).astype(np.int16),
    "uint8": lambda: np.stack(TEACHER).astype(np.uint8),
    "uint64": lambda: np.stack(TEACHER).astype(np.uint64),
    "big-endian": lambda: np.stack(TEACHER).astype(">i4"),
    "a mixture": lambda: [w.astype(d) for w, d in zip(TEACHER, MIXTURE, strict=True)],
    "a tensor": lambda: torch.tensor(np.stack(TEACHER)),
    "an int32 tensor": lambda: torch.tensor(np.stack(TEACHER), dtype=torch.int32),
    "more windows than sequences": lambda: [*TEACHER, TEACHER[0]],
}
MIXTURE = [(np.uint64, np.int64)[i % 2] for i in range(len(TEACHER))]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", SAME)
def test_equal_tokens_are_accepted_in_any_form(
    caches: dict[bool, sl.Cache], stored: bool, name: str
) -> None:
    given = SAME[name]()
    sl.check_alignment(caches[stored], given)
    batches = list(SparseLogitDataset(caches[stored], 5, shuffle=False, input_ids=given))
    rows = torch.cat([batch.input_ids for batch in batches])
    assert rows.tolist() == np.stack(TEACHER)[: len(rows)].tolist()


def test_sequences_of_no_tokens(tmp_path: Path) -> None:
    cache = write(tmp_path / "c", [TEACHER[0], TEACHER[0][:0], TEACHER[1]], store_tokens=False)
    sl.check_alignment(cache, [TEACHER[0], [], TEACHER[1]])
    with pytest.raises(
        sl.FingerprintMismatchError, match=r"sequence_id 1001 .*\(24 tokens, not 0\)"
    ):
        sl.check_alignment(cache, TEACHER)


@pytest.mark.parametrize(
    "window", [1.5, [1.5], [[1, 2]], [True], "text", {"input_ids": [1]}, None, [None]]
)
def test_what_is_no_window_is_named(caches: dict[bool, sl.Cache], window: Any) -> None:
    given = [*TEACHER[:3], window, *TEACHER[4:]]
    with pytest.raises(sl.InvalidArgumentError, match=r"input_ids\[3\]"):
        sl.check_alignment(caches[False], given)


def test_a_wide_vocabulary_is_not_searched_for_ever(tmp_path: Path) -> None:
    """Trying 2^24 tokens would take minutes: only those of the window are tried."""
    config = sl.CacheConfig(vocab_size=1 << 24, rounds=1, store_tokens=False)
    window = np.arange(100) * 1000
    with sl.CacheWriter(tmp_path / "c", config) as writer:
        writer.append(window, np.zeros(101, np.int64), [], [])
    with pytest.raises(sl.FingerprintMismatchError, match=UNKNOWN):
        sl.check_alignment(sl.open(tmp_path / "c"), [np.append(5, window[:-1])])


def test_progress(caches: dict[bool, sl.Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparselogits.alignment._REPORT_EVERY", 8)
    seen: list[tuple[int, int]] = []
    sl.check_alignment(caches[False], TEACHER, progress=lambda *done: seen.append(done))
    number = len(TEACHER)
    assert seen == [*((i, number) for i in range(8, number + 1, 8)), (number, number)]
