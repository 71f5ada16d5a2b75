"""What this process holds of the system, to be counted before and after."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Descriptors (what they point to), maps of shards, threads, and temporary files left over."""

    descriptors: tuple[str, ...]
    maps: tuple[str, ...]
    threads: int
    temporary: tuple[str, ...]


def held(directory: Path) -> Held:
    """What is held now; of maps and temporary files, those of `directory` and below."""
    gc.collect()
    return Held(
        tuple(sorted(_descriptors())),
        tuple(sorted(mapped_shards(directory))),
        len(os.listdir("/proc/self/task")),
        tuple(sorted(str(path) for path in directory.rglob("*.tmp"))),
    )


def mapped_shards(directory: Path = Path("/")) -> list[str]:
    """The path of each map that names a shard in a directory or below."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = [line.split(maxsplit=5)[5] for line in lines if ".slc" in line]
    return [path for path in paths if path.startswith(str(directory))]


@contextlib.contextmanager
def nothing_more_held(directory: Path) -> Iterator[None]:
    """What is done inside leaves nothing behind."""
    before = held(directory)
    yield
    assert held(directory) == before


def _descriptors() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found
