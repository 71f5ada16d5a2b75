"""Datasets of formats that know only single files: a directory of numbered ones, read in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from records import FILE_RECORDS, Source

Write = Callable[[list[bytes]], None]
"""Takes the next records of a file."""

OpenWriter = Callable[[Path], AbstractContextManager[Write]]


def write_files(
    path: Path,
    suffix: str,
    source: Source,
    batch_records: int,
    open_writer: OpenWriter,
    batch_is_committed: bool = False,
) -> list[Path]:
    """Writes files of FILE_RECORDS records each; a closed file counts as committed.

    Args:
        batch_records: Records of one call of the writer.
        batch_is_committed: Whether a file that is not closed yet keeps its batches.
    """
    path.mkdir(exist_ok=True)
    files: list[Path] = []
    batches = _batches(source, batch_records)
    written = 0
    for first in batches:
        files.append(path / f"data-{len(files):05}{suffix}")
        with open_writer(files[-1]) as write:
            rest = itertools.islice(batches, FILE_RECORDS // batch_records - 1)
            for batch in itertools.chain([first], rest):
                write(batch)
                written += len(batch)
                if batch_is_committed:
                    source.progress.commit(written)
        source.progress.commit(written)
    return files


def numbered_files(path: Path, suffix: str) -> list[Path]:
    """All files of a directory: nothing says how many there should be."""
    return sorted(path.glob(f"data-*{suffix}"))


def salvage_files(files: list[Path], read: Callable[[Path], Iterator[bytes]]) -> list[bytes]:
    """The records of those files that can be read to their end."""
    found = []
    for file in files:
        try:
            found += list(read(file))
        except Exception:  # each format raises its own
            continue
    return found


def _batches(source: Source, size: int) -> Iterator[list[bytes]]:
    batch = []
    for record in source:
        batch.append(record.encoded)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
