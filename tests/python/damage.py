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


def frames(file: Path) -> list[tuple[bytes, int, int]]:
    """Type, offset and length of each frame of a sound shard (formats/v1.md, section 4)."""
    data = file.read_bytes()
    found, at = [], 128
    while at < len(data) - 64:
        length = 32 + (int.from_bytes(data[at + 8 : at + 12], "little") + 7) // 8 * 8
        found.append((data[at : at + 4], at, length))
        at += length
    return found
