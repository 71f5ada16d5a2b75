"""What tokens look like that are not those the teacher read: the words of an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.fingerprint import fingerprint_if_tokens

if TYPE_CHECKING:
    from sparselogits.reader import Cache

Tokens = npt.NDArray[np.int64]

_MAX_SHIFT = 64
# To find one unknown token every token is tried, as long as that takes a second or two.
_MAX_HASHED_TOKENS = 1 << 30
_COST_OF_A_HASH = 512  # of calling it, in tokens hashed


@dataclass(frozen=True)
class _Teacher:
    """What a cache knows of one sequence."""

    fingerprint: int
    length: int
    vocab_size: int
    stored: Tokens | None

    def read(self, tokens: Tokens) -> bool:
        """Whether the teacher read exactly these."""
        return fingerprint_if_tokens(tokens) == self.fingerprint


def describe_mismatch(cache: Cache, index: int, window: Tokens) -> str:
    """Names the sequence, what differs first, and what the difference looks like.

    Args:
        cache: Whose sequence it is.
        index: Of the sequence in the cache.
        window: (S,) tokens that do not have its fingerprint.
    """
    starts = cache.sequence_starts
    stored = cache.read(index).input_ids if cache.config.store_tokens else None
    teacher = _Teacher(
        fingerprint=int(cache.fingerprints[index]),
        length=int(starts[index + 1] - starts[index]),
        vocab_size=cache.config.vocab_size,
        stored=None if stored is None else stored.astype(np.int64),
    )
    looks = "; ".join(_resemblances(cache, teacher, window))
    return (
        f"sequence_id {cache.sequence_ids[index]} (index {index}): input_ids are not the tokens "
        f"that the teacher read: {_first_difference(teacher, window)}. {looks}"
    )


def _first_difference(teacher: _Teacher, window: Tokens) -> str:
    lengths = f"{len(window)} tokens"
    if len(window) != teacher.length:
        lengths += f", not {teacher.length}"
    if teacher.stored is None:
        found = fingerprint_if_tokens(window)
        shown = "none" if found is None else f"{found:016x}"
        return f"fingerprint {shown}, not {teacher.fingerprint:016x} ({lengths})"
    common = min(len(window), teacher.length)
    different = np.flatnonzero(window[:common] != teacher.stored[:common])
    if len(different) == 0:
        return f"{lengths}; the first {common} agree"
    place = int(different[0])
    return (
        f"token {place} is {window[place]} and was {teacher.stored[place]} "
        f"({lengths}; {len(different)} of {common} differ)"
    )


def _resemblances(cache: Cache, teacher: _Teacher, window: Tokens) -> Iterator[str]:
    """What the tokens look like, the surest first; or what was tried."""
    wrong = np.flatnonzero((window < 0) | (window >= teacher.vocab_size))
    if len(wrong):
        yield _outside_vocabulary(int(wrong[0]), int(window[wrong[0]]), teacher.vocab_size)
    found = (
        _another_sequence(cache, window)
        or _more_tokens(teacher, window)
        or _fewer_tokens(teacher, window)
        or _shifted(teacher, window)
    )
    if found is not None:
        yield found
    elif not len(wrong):
        yield (
            "They are not those of another sequence of the cache, nor shifted by a token, nor "
            "these with tokens before or behind: perhaps another packing or tokenizer"
        )


def _outside_vocabulary(place: int, token: int, vocab_size: int) -> str:
    if token < 0:
        return f"Token {place} is {token}, no token id: labels in place of inputs?"
    return f"Token {place} is {token} and the cache's vocab_size {vocab_size}: another tokenizer?"


def _another_sequence(cache: Cache, window: Tokens) -> str | None:
    found = fingerprint_if_tokens(window)
    if found is None:
        return None
    places = np.flatnonzero(cache.fingerprints == np.uint64(found))
    if len(places) == 0:
        return None
    return (
        f"They are the tokens of sequence_id {cache.sequence_ids[places[0]]} (index {places[0]}): "
        "the dataset is in another order"
    )


def _more_tokens(teacher: _Teacher, window: Tokens) -> str | None:
    more = len(window) - teacher.length
    if more <= 0 or teacher.length == 0:
        return None
    for before in range(min(more, _MAX_SHIFT) + 1):
        if teacher.read(window[before : before + teacher.length]):
            return (
                f"They are the teacher's with {before} tokens before and {more - before} behind: "
                "another padding or packing"
            )
    return None


def _fewer_tokens(teacher: _Teacher, window: Tokens) -> str | None:
    stored, fewer = teacher.stored, teacher.length - len(window)
    if fewer <= 0 or not len(window):
        return None
    if stored is None:
        return f"The teacher read {fewer} more, which the cache does not store"
    for before in range(min(fewer, _MAX_SHIFT) + 1):
        if np.array_equal(stored[before : before + len(window)], window):
            return (
                f"They lack {before} at the start and {fewer - before} at the end: "
                "truncated, or another packing"
            )
    return None


def _shifted(teacher: _Teacher, window: Tokens) -> str | None:
    if len(window) != teacher.length or not len(window):
        return None
    left = "They are shifted by {} to the left, as labels are"
    right = "They are shifted by {} to the right, as behind an added first token"
    stored = teacher.stored
    if stored is not None:
        for shift in range(1, min(_MAX_SHIFT, len(window) // 2) + 1):
            if np.array_equal(stored[shift:], window[:-shift]):
                return left.format(shift)
            if np.array_equal(stored[:-shift], window[shift:]):
                return right.format(shift)
        return None
    first = _unknown_token(teacher, window[:-1], place=0)
    if first is not None:
        return f"{left.format(1)}: the teacher read them behind {first}, without the last"
    last = _unknown_token(teacher, window[1:], place=len(window) - 1)
    if last is not None:
        return f"{right.format(1)}: the teacher read them without the first, before {last}"
    return None


def _unknown_token(teacher: _Teacher, known: Tokens, place: int) -> int | None:
    """The token that, put at `place` of the known ones, makes them the teacher's."""
    if fingerprint_if_tokens(known) is None:
        return None
    attempts = _MAX_HASHED_TOKENS // (len(known) + _COST_OF_A_HASH)
    candidates = (
        range(teacher.vocab_size) if teacher.vocab_size <= attempts else np.unique(known).tolist()
    )
    tokens = np.insert(known, place, 0).astype(np.uint32)
    for candidate in candidates:
        tokens[place] = candidate
        if _core.fingerprint_tokens(tokens) == teacher.fingerprint:
            return int(candidate)
    return None
