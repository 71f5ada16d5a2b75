"""What a dataset's files are made of: all that the fault injectors know of a format."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import children
from adapters.base import Adapter

Place = tuple[str, int, int]
"""File name, start and end in bytes."""


@dataclass(frozen=True)
class Layout:
    """A dataset and, for faults that mix two, another of the same shape.

    Attributes:
        path, other: The two directories.
        sizes: Bytes of each data file, by name.
        index_files: Names of the files that hold only what is about records.
        index: Where the dataset says what it holds.
        units: Pairs of records, batches or blocks of a data file that can change places.
    """

    path: Path
    other: Path
    sizes: dict[str, int]
    index_files: list[str]
    index: list[Place]
    units: list[tuple[Place, Place]]


def layout_of(adapter: Adapter, path: Path, other: Path) -> Layout:
    """Asks the adapter, in a child: see `children`."""
    found = children.run(lambda: asdict(_layout(adapter, path)))
    if found.kind != "value":
        raise RuntimeError(f"{adapter.name} cannot say what is in its files: {found}")
    return Layout(path=path, other=other, **found.value)


@dataclass(frozen=True)
class _Found:
    sizes: dict[str, int]
    index_files: list[str]
    index: list[Any]
    units: list[Any]


def _layout(adapter: Adapter, path: Path) -> _Found:
    files = adapter.data_files(path)
    units = []
    for file in files:
        for group in adapter.units(file):
            for number, first in enumerate(group):
                units += [
                    ((file.name, *first), (file.name, *second)) for second in group[number + 1 :]
                ]
    return _Found(
        {file.name: file.stat().st_size for file in files},
        [file.name for file in adapter.index_files(path)],
        [(file.name, *span) for file, span in adapter.index_ranges(path)],
        units,
    )
