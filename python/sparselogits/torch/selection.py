"""Filters: which sequences of which caches a dataset uses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import unsigned_array
from sparselogits.errors import InvalidArgumentError, SequenceNotFoundError
from sparselogits.reader import Cache

Selection: TypeAlias = npt.NDArray[np.int64] | None
"""(n,) ascending indices of the sequences of a cache; None is all of them."""


@dataclass(frozen=True, eq=False)
class SequenceFacts:
    """What a filter may know about the n sequences of a cache, in its order.

    Attributes:
        sequence_ids: (n,) uint64.
        lengths: (n,) int64, in positions.
        fingerprints: (n,) uint64, `fingerprint_tokens` of their input tokens.
        metadata: Of the cache.
    """

    sequence_ids: npt.NDArray[np.uint64]
    lengths: npt.NDArray[np.int64]
    fingerprints: npt.NDArray[np.uint64]
    metadata: dict[str, str]


SequenceFilter: TypeAlias = Callable[[SequenceFacts], Any] | npt.ArrayLike | AbstractSet[int]
"""A function of `SequenceFacts` that gives (n,) booleans, or the sequence_ids to use."""


def select(caches: Sequence[Cache], chosen: SequenceFilter | None) -> tuple[Selection, ...]:
    """The selection from each cache.

    Raises:
        InvalidArgumentError: The filter gives something else than n booleans, names a sequence
            twice, or selects nothing from a cache (by a function) or from all.
        SequenceNotFoundError: A sequence_id is in none of the caches.
    """
    if chosen is None:
        return (None,) * len(caches)
    if isinstance(chosen, (set, frozenset)):
        chosen = list(chosen)
    masks = [_mask(cache, chosen) for cache in caches] if callable(chosen) else _named(
        caches, unsigned_array("sequence_filter", chosen)
    )  # fmt: skip
    for cache, mask in zip(caches, masks, strict=True):
        if not mask.any():
            raise InvalidArgumentError(f"sequence_filter selects no sequence of {cache.path}")
    return tuple(None if mask.all() else np.flatnonzero(mask).astype(np.int64) for mask in masks)


def selection_digest(selections: Sequence[Selection]) -> str | None:
    """Tells selections apart, in training states; None where all sequences are used."""
    if all(selection is None for selection in selections):
        return None
    hashed = hashlib.sha256()
    for selection in selections:
        data = b"" if selection is None else selection.astype("<i8").tobytes()
        hashed.update(b"all," if selection is None else b"%d," % len(selection))
        hashed.update(data)
    return hashed.hexdigest()


def _mask(cache: Cache, predicate: Callable[[SequenceFacts], Any]) -> npt.NDArray[np.bool_]:
    facts = SequenceFacts(
        cache.sequence_ids, cache.sequence_lengths, cache.fingerprints, cache.metadata
    )
    mask = np.asarray(predicate(facts))
    if mask.dtype != np.bool_ or mask.shape != (len(cache),):
        raise InvalidArgumentError(
            f"sequence_filter must give ({len(cache)},) booleans for {cache.path}, got shape "
            f"{mask.shape} of {mask.dtype}"
        )
    return mask


def _named(caches: Sequence[Cache], ids: npt.NDArray[np.uint64]) -> list[npt.NDArray[np.bool_]]:
    names, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InvalidArgumentError(
            f"sequence_filter names sequence_id {names[counts > 1][0]} more than once"
        )
    masks = [np.isin(cache.sequence_ids, names) for cache in caches]
    known = [cache.sequence_ids[mask] for cache, mask in zip(caches, masks, strict=True)]
    missing = np.setdiff1d(names, np.concatenate(known))
    if missing.size:
        where = ", ".join(cache.path for cache in caches)
        raise SequenceNotFoundError(f"{where}: there is no sequence_id {missing[0]}")
    return masks
