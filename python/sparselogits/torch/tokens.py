"""Tokens that the caller brings, checked against what the teacher saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sparselogits.errors import FingerprintMismatchError, InvalidArgumentError
from sparselogits.fingerprint import fingerprint_tokens

if TYPE_CHECKING:
    from sparselogits.reader import Cache
    from sparselogits.sparse import SparseLogits


class TokenSource(Protocol):
    """An (N, S) array, or anything else that gives the 1-D token array of an index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def checked_tokens(
    source: TokenSource, cache: Cache, indices: npt.NDArray[np.int64], sparse: SparseLogits
) -> npt.NDArray[np.integer]:
    """The caller's tokens of some sequences, end to end.

    Args:
        source: `source[i]` holds the tokens of the cache's sequence i.
        cache: Knows the fingerprints.
        indices: (B,) of the sequences.
        sparse: What the cache returned for them.

    Raises:
        FingerprintMismatchError: They differ from the tokens that the teacher saw.
        InvalidArgumentError: They are not 1-D integers.
    """
    windows = [_as_tokens(source[index], index) for index in indices.tolist()]
    expected = cache.fingerprints[indices]
    assert sparse.sequence_offsets is not None
    for i, window in enumerate(windows):
        start, stop = sparse.sequence_offsets[i], sparse.sequence_offsets[i + 1]
        found = fingerprint_tokens(window)
        if len(window) != stop - start or found != int(expected[i]):
            assert sparse.sequence_ids is not None
            stored = None if sparse.input_ids is None else sparse.input_ids[start:stop]
            raise FingerprintMismatchError(
                f"sequence {int(sparse.sequence_ids[i])} (index {int(indices[i])}): the teacher "
                f"saw {stop - start} tokens with fingerprint {int(expected[i]):016x}, but "
                f"input_ids has {len(window)} with {found:016x}{_first_difference(window, stored)}"
            )
    return np.concatenate(windows)


def _as_tokens(window: Any, index: int) -> npt.NDArray[np.integer]:
    tokens = np.asarray(window)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"input_ids[{index}] is {tokens.dtype} of shape {tokens.shape}; it must be 1-D integers"
        )
    return tokens


def _first_difference(
    window: npt.NDArray[np.integer], stored: npt.NDArray[np.integer] | None
) -> str:
    if stored is None:
        return ""
    common = min(len(window), len(stored))
    different = np.flatnonzero(window[:common] != stored[:common])
    if len(different) == 0:
        return f"; one is the beginning of the other, of {common} tokens"
    place = int(different[0])
    return f"; token {place} is {int(window[place])} and was {int(stored[place])}"
