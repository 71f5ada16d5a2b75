"""`ShardAccess`: what a `Cache` asks of the files behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from sparselogits import _core
from sparselogits.errors import MismatchError
from sparselogits.files_to_verify import FilesToVerify
from sparselogits.manifest import Manifest
from sparselogits.sequence_table import SequenceTable

T = TypeVar("T")
Integers = npt.NDArray[np.int64]


class ShardBounds:
    """Which shard holds what, by the manifest alone."""

    def __init__(self, manifest: Manifest) -> None:
        self._ends = {
            name: np.cumsum([getattr(row, name) for row in manifest.shards], dtype=np.int64)
            for name in ("sequences", "positions")
        }

    def of_sequences(self, indices: Integers) -> list[int]:
        """The numbers of the shards of these sequences, in the order in which they are first met.
        REQUIRES: there are such sequences."""
        return self._numbers("sequences", indices)

    def of_positions(self, positions: Integers) -> list[int]:
        """The same for global positions."""
        return self._numbers("positions", positions)

    def _numbers(self, what: str, indices: Integers) -> list[int]:
        numbers = np.searchsorted(self._ends[what], indices, side="right")
        return list(dict.fromkeys(numbers.tolist()))


class ShardAccess(Protocol):
    """The files of one open cache.

    Attributes:
        name: The absolute path of the directory, or the URL.
        model_directory: Where the models lie.
        shard_directory: Where shards lie while they are held.
        manifest: Of the cache.
        models: Those that its shards need.
        reader: Reads the shards that are held.
        bounds: Which shard holds what.
    """

    name: str
    model_directory: Path
    shard_directory: Path
    manifest: Manifest
    models: list[_core.CodecModel]
    reader: _core.CacheReader
    bounds: ShardBounds

    def hold(
        self, numbers: Sequence[int], *, wait: bool = True
    ) -> AbstractContextManager[object] | None:
        """Makes shards readable until the result is released (`__exit__`).

        Args:
            numbers: Of the shards, unique.
            wait: Else None where there is no room before others have released theirs.
        """

    def prefetch(self, indices: Integers) -> None:
        """Has the shards of these sequences fetched, soon and without waiting."""

    def renew(self, number: int) -> bool:
        """Replaces a held shard whose local copy is damaged; False where it is no such copy."""

    def reading(self, numbers: Callable[[], Sequence[int]], read: Callable[[], T]) -> T:
        """Does `read` while the shards of these numbers are held, where any have to be."""

    def sequence_table(self) -> SequenceTable:
        """What is known of every sequence."""

    def files_to_verify(self) -> FilesToVerify:
        """For the deep check.

        Raises:
            MismatchError: The manifest has changed since the cache was opened.
        """


def check_digest(name: str, manifest: Manifest, digest: str | None) -> None:
    """Refuses a cache that is not the one that is meant.

    Raises:
        MismatchError: It has another digest; names both.
    """
    if digest is not None and digest != manifest.digest:
        raise MismatchError(f"{name} has changed: its digest is {manifest.digest}, not {digest}")
