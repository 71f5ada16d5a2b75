"""Whether the tokens that a student brings are those that the teacher read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import integer_array
from sparselogits.errors import FingerprintMismatchError
from sparselogits.fingerprint import fingerprint_if_tokens
from sparselogits.misalignment import describe_mismatch

if TYPE_CHECKING:
    from sparselogits.reader import Cache

_REPORT_EVERY = 1024


class TokenSource(Protocol):
    """An (N, S) array, or anything else that gives the 1-D token array of an index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def check_alignment(
    cache: Cache,
    input_ids: TokenSource,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Compares a whole dataset with what the teacher read, before anything is trained.

    Returns where every sequence of the cache has its own tokens. Windows beyond the cache's
    sequences are not looked at. Reads every window once and hashes it; of the cache it reads the
    fingerprints, and stored tokens only to describe a difference.

    Args:
        cache: An open cache.
        input_ids: `input_ids[i]` holds the tokens of the cache's sequence i, 1-D integers of any
            dtype: an (N, S) array or tensor, a list of arrays.
        progress: Called with the windows done and the windows to do, now and then.

    Raises:
        FingerprintMismatchError: Names the first sequence whose tokens differ, what differs first
            and, where that can be told, what it looks like: another order, a shift, padding.
        InvalidArgumentError: A window is not one-dimensional or not integers.
    """
    num_windows = min(len(cache), len(input_ids))
    for index in range(num_windows):
        checked_window(cache, input_ids, index)
        if progress is not None and (index + 1) % _REPORT_EVERY == 0:
            progress(index + 1, num_windows)
    if num_windows < len(cache):
        raise FingerprintMismatchError(
            f"input_ids has {num_windows} windows and the cache {len(cache)} sequences: "
            f"sequence_id {cache.sequence_ids[num_windows]} (index {num_windows}) is the first "
            "without tokens"
        )
    if progress is not None:
        progress(num_windows, num_windows)


def checked_window(cache: Cache, source: TokenSource, index: int) -> npt.NDArray[np.int64]:
    """The tokens that `source` has for a sequence of the cache.

    Raises:
        FingerprintMismatchError: They are not those that the teacher read; says what differs.
        InvalidArgumentError: They are not 1-D integers.
    """
    window = integer_array(f"input_ids[{index}]", source[index])
    if fingerprint_if_tokens(window) != cache.fingerprint_of(index):
        raise FingerprintMismatchError(describe_mismatch(cache, index, window))
    return window


def checked_tokens(
    cache: Cache, source: TokenSource, indices: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """As `checked_window`, of several sequences end to end."""
    windows = [checked_window(cache, source, index) for index in indices.tolist()]
    return np.concatenate([np.empty(0, np.int64), *windows])
