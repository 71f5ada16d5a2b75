"""Shards of a cache, to be damaged."""

from __future__ import annotations

from pathlib import Path


def shard(path: Path, number: int) -> Path:
    """A finished shard of the cache at `path`."""
    return path / f"shard-{number:06d}.slc"


def damage(file: Path, place: float) -> None:
    """Flips a bit at a fraction of the file's length."""
    data = bytearray(file.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    file.write_bytes(data)
