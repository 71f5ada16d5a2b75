"""A small cache of many shards, where it is remote, and what of it is local."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caches import random_sequence, write

import sparselogits as sl

# Of one length, so that their shards are almost alike: where k of them fit, k + 1 do not.
SEQUENCES = [random_sequence(i, 40) for i in range(12)]


def fetches(cache: sl.Cache) -> list[Any]:
    """The jobs of a remote cache that have not ended."""
    shards: Any = cache._shards
    return list(shards._here[1]._jobs.values())


def wait_for_fetches(cache: sl.Cache) -> None:
    """Until nothing is being fetched any more."""
    while fetches(cache):
        time.sleep(0.001)


def make_remote(path: Path, sequences: list[Any]) -> Path:
    """A cache with a shard for each sequence."""
    write(path, sequences, shard_bytes=1)
    return path


@dataclass
class Remote:
    """A cache at a URL.

    Attributes:
        url: Where it is.
        made: The directory that it is a copy of.
        root: Where its shards are kept.
        options: For `sl.open`.
    """

    url: str
    made: Path
    root: Path
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> list[int]:
        """Of the shards, bytes."""
        return [row.bytes for row in sl.open(self.made).manifest.shards]

    def room_for(self, shards: int) -> int:
        """Bytes for so many shards, whichever they are, and not for one more."""
        assert max(self.sizes) * shards < min(self.sizes) * (shards + 1)
        return max(self.sizes) * shards

    def open(self, **options: Any) -> sl.Cache:
        return sl.open(self.url, **{"local_cache": self.root, **self.options, **options})

    @property
    def local(self) -> set[str]:
        """The names of the shards that are local."""
        return {path.name for path in self.root.glob("*/shards/*")}

    @property
    def local_bytes(self) -> int:
        """What the bound counts."""
        paths = [*self.root.glob("*/shards/*"), *self.root.glob("*/fetching/*")]
        total = 0
        for path in paths:
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
        return total

    def file(self, number: int) -> str:
        """The name of a shard."""
        return f"shard-{number:06d}.slc"
