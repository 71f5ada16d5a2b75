"""The faults of stored bytes, the same for every format.

Each function chooses places in an undamaged dataset and returns one `Damage` a place: a function
that harms a copy of that dataset. Copies share their unharmed files with the original, so a file
is replaced, never changed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from layout import Layout, Place

Damage = Callable[[Path], None]
Choose = Callable[[Layout, random.Random, int], list[Damage]]
T = TypeVar("T")

_SECTOR = 4096


def flipped_data_bits(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """One bit of the data files."""
    return _flips([(name, 0, size) for name, size in layout.sizes.items()], rng, count)


def flipped_index_bits(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """One bit of what says what the data files hold."""
    return _flips(layout.index, rng, count)


def zeroed_sectors(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """4 KiB of a data file, aligned, become zeros."""

    def zeroed(name: str, start: int) -> Damage:
        def change(data: bytearray) -> None:
            end = min(start + _SECTOR, len(data))
            data[start:end] = bytes(end - start)

        return lambda copy: _rewrite(copy / name, change)

    sectors = [
        (name, start) for name, size in layout.sizes.items() for start in range(0, size, _SECTOR)
    ]
    return [zeroed(*sector) for sector in _some(sectors, rng, count)]


def truncated_files(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """A data file ends early, at any byte."""

    def truncated(name: str, length: int) -> Damage:
        def change(data: bytearray) -> None:
            del data[length:]

        return lambda copy: _rewrite(copy / name, change)

    names = rng.choices(list(layout.sizes), list(layout.sizes.values()), k=count)
    return [truncated(name, rng.randrange(layout.sizes[name])) for name in names]


def swapped_units(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """Two records, batches or blocks of a file change places."""

    def swapped(first: Place, second: Place) -> Damage:
        name, first_start, first_end = first
        _, second_start, second_end = second

        def change(data: bytearray) -> None:
            data[first_start:second_end] = (
                data[second_start:second_end]
                + data[first_end:second_start]
                + data[first_start:first_end]
            )

        return lambda copy: _rewrite(copy / name, change)

    return [swapped(*pair) for pair in _some(layout.units, rng, count)]


def exchanged_files(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """Two data files of the dataset have each other's name."""

    def exchanged(first: str, second: str) -> Damage:
        def harm(copy: Path) -> None:
            (copy / first).rename(copy / "aside")
            (copy / second).rename(copy / first)
            (copy / "aside").rename(copy / second)

        return harm

    pairs = itertools.combinations(layout.sizes, 2)
    return [exchanged(*pair) for pair in _some(pairs, rng, count)]


def foreign_indexes(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """An index file is that of another dataset of the same shape."""

    def foreign(name: str) -> Damage:
        def harm(copy: Path) -> None:
            (copy / name).unlink()
            (copy / name).hardlink_to(layout.other / name)

        return harm

    return [foreign(name) for name in layout.index_files]


def missing_files(layout: Layout, rng: random.Random, count: int) -> list[Damage]:
    """One file of the dataset is gone."""

    def missing(name: str) -> Damage:
        return lambda copy: (copy / name).unlink()

    return [missing(name) for name in [*layout.index_files, *layout.sizes]]


FAULTS: dict[str, Choose] = {
    "bit, data": flipped_data_bits,
    "bit, index": flipped_index_bits,
    "sector zeroed": zeroed_sectors,
    "truncated": truncated_files,
    "blocks swapped": swapped_units,
    "files exchanged": exchanged_files,
    "foreign index": foreign_indexes,
    "file missing": missing_files,
}

EQUAL_SIZE_FAULTS: dict[str, Choose] = {
    "blocks swapped, equal sizes": swapped_units,
    "files exchanged, equal sizes": exchanged_files,
}
"""For records of one size: a format may notice a fault only because sizes differ."""


def _flips(places: list[Place], rng: random.Random, count: int) -> list[Damage]:
    def flipped(name: str, position: int, bit: int) -> Damage:
        def change(data: bytearray) -> None:
            data[position] ^= 1 << bit

        return lambda copy: _rewrite(copy / name, change)

    chosen = rng.choices(places, [end - start for _, start, end in places], k=count)
    return [flipped(name, rng.randrange(*span), rng.randrange(8)) for name, *span in chosen]


def _some(places: Iterable[T], rng: random.Random, count: int) -> list[T]:
    """`count` of the places, or all where there are fewer."""
    every = list(places)
    return every if len(every) <= count else rng.sample(every, count)


def _rewrite(file: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(file.read_bytes())
    change(data)
    file.unlink()
    file.write_bytes(data)
