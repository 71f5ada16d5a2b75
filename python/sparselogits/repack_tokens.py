"""The tokens of a cache that is repacked: stored in it, brought by the caller, or not at hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.alignment import checked_tokens
from sparselogits.errors import CorruptionError, InvalidArgumentError
from sparselogits.fingerprint import fingerprint_tokens
from sparselogits.reader import Cache
from sparselogits.sparse import SparseLogits


class RepackTokens:
    """Checks every token that it gives against the fingerprints of the cache.

    Args:
        cache: The source.
        store_tokens: Whether the new cache stores tokens.
        input_ids: `input_ids[i]` holds the tokens of the cache's sequence i; only to add tokens to
            a cache that stores none.

    Raises:
        InvalidArgumentError: Tokens are to be stored, but are neither in the cache nor given; or
            they are given to no use, or not one array a sequence.
    """

    def __init__(self, cache: Cache, store_tokens: bool, input_ids: Any) -> None:
        stored = cache.config.store_tokens
        if input_ids is None and store_tokens and not stored:
            raise InvalidArgumentError(
                f"store_tokens=True needs input_ids: {cache.path} stores no tokens"
            )
        if input_ids is not None and (stored or not store_tokens):
            raise InvalidArgumentError(
                "input_ids add tokens to a cache that stores none: give them with "
                f"store_tokens=True only, and not for {cache.path}, which "
                + ("has its own" if stored else "is to go on without")
            )
        if input_ids is not None:
            number = len(input_ids) if hasattr(input_ids, "__len__") else type(input_ids).__name__
            if number != len(cache):
                raise InvalidArgumentError(
                    f"input_ids must be one array a sequence of {cache.path}, "
                    f"got {number} for {len(cache)} sequences"
                )
        self._cache = cache
        self._given = input_ids

    @property
    def are_at_hand(self) -> bool:
        """Whether there are any; else only their fingerprints are known."""
        return self._given is not None or self._cache.config.store_tokens

    def at(
        self,
        sequences: npt.NDArray[np.int64],
        within: npt.NDArray[np.int64],
        sparse: SparseLogits,
    ) -> npt.NDArray[Any]:
        """(n,) tokens of the positions `within` of `sequences`, of which `sparse` are the records.

        REQUIRES: `are_at_hand`; `sequences` are in the order in which they are to be written.

        Raises:
            FingerprintMismatchError, InvalidArgumentError: As for `of`.
        """
        if self._given is None:
            assert sparse.input_ids is not None
            return sparse.input_ids
        some, number = np.unique(sequences, return_inverse=True)
        starts = np.concatenate([[0], np.cumsum(self._cache.sequence_lengths[some])])
        tokens = checked_tokens(self._cache, self._given, some)
        return tokens[starts[number] + within]

    def of(self, indices: npt.NDArray[np.int64], sparse: SparseLogits) -> npt.NDArray[np.int64]:
        """(T,) tokens of the sequences at `indices`, of which `sparse` are the records.

        REQUIRES: `are_at_hand`.

        Raises:
            FingerprintMismatchError: Those given are not those that the teacher saw.
            CorruptionError: Those stored do not have the fingerprint stored with them.
            InvalidArgumentError: Those given are not one-dimensional integers.
        """
        if self._given is not None:
            return checked_tokens(self._cache, self._given, indices)
        assert sparse.input_ids is not None
        assert sparse.sequence_offsets is not None
        tokens = sparse.input_ids.astype(np.int64)
        starts = sparse.sequence_offsets.tolist()
        for index, start, stop in zip(indices.tolist(), starts[:-1], starts[1:], strict=True):
            found = fingerprint_tokens(tokens[start:stop])
            expected = int(self._cache.fingerprints[index])
            if found != expected:
                raise CorruptionError(
                    f"sequence_id {self._cache.sequence_ids[index]}: the stored tokens have the "
                    f"fingerprint {found:016x}, not {expected:016x}",
                    self._cache.path,
                    None,
                    "fingerprint",
                )
        return tokens
