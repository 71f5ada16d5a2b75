"""A disk that loses what was not synced: replays a log of system calls up to a loss of power.

The model is harsher than real file systems: data reaches the disk only by fsync or fdatasync of its
file, a name only by fsync of its directory, and of the rest any part may be there, in any order.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from faulty_calls import Call, Kind

SECTOR = 512


class Fate(enum.Enum):
    """What becomes of the changes that were not synced."""

    LOST = "lost"
    KEPT = "kept"
    ZEROED = "zeroed"  # of data: the file has grown, its blocks were never written
    FIRST = "first"  # of names: the first ones are kept, as by a journal
    MIXED = "mixed"  # each change has a fate of its own, and each sector of a write


@dataclass(eq=False)
class _File:
    """A file's bytes on the disk, and the changes that are only in memory."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None cuts to a length

    def sync(self) -> None:
        self.durable = self.content(Fate.KEPT, None)
        self.pending = []

    def content(self, fate: Fate, rng: np.random.Generator | None) -> bytes:
        data = bytearray(self.durable)
        for offset, written in self.pending:
            its_fate = fate if rng is None else _FATES[int(rng.integers(len(_FATES)))]
            if written is None:
                if its_fate in (Fate.KEPT, Fate.MIXED):
                    del data[offset:]
            elif its_fate is not Fate.LOST:
                _write(data, offset, written, its_fate, rng)
        return bytes(data)


_FATES = (Fate.LOST, Fate.KEPT, Fate.KEPT, Fate.ZEROED, Fate.MIXED)  # of one change


@dataclass(frozen=True, eq=False)
class _NameChange:
    """`removed` vanishes, `added` is there; either may be None. A file of None is a directory."""

    removed: str | None
    added: str | None
    file: _File | None = None


class SimulatedDisk:
    """The files below a directory, as a kernel shows them and as the disk has them.

    Args:
        root: Where they are when it begins, all durable.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._durable: dict[str, _File | None] = {}
        for path in root.rglob("*"):
            self._durable[str(path)] = None if path.is_dir() else _File(path.read_bytes())
        self._names = dict(self._durable)
        self._changes: list[_NameChange] = []
        self._open: dict[int, _File | str] = {}  # a str is a directory
        self.mark = 0

    def replay(self, call: Call) -> None:
        """Does what a logged call did."""
        if call.error:
            return
        target = self._open.get(call.file)
        if call.kind is Kind.OPEN:
            self._open[call.file] = self._opened(call)
        elif call.kind is Kind.WRITE and isinstance(target, _File):
            target.pending.append((call.offset, call.data))
        elif call.kind is Kind.TRUNCATE and isinstance(target, _File):
            target.pending.append((call.length, None))
        elif call.kind in (Kind.SYNC, Kind.DATASYNC):
            self._sync(target)
        elif call.kind is Kind.RENAME:
            self._change(_NameChange(call.path, call.second, self._names[call.path]))
        elif call.kind is Kind.UNLINK:
            self._change(_NameChange(call.path, None))
        elif call.kind is Kind.MKDIR:
            self._change(_NameChange(None, call.path))
        elif call.kind is Kind.MARK:
            self.mark = call.length

    def after_power_loss(
        self, data: Fate, names: Fate, rng: np.random.Generator
    ) -> dict[str, bytes | None]:
        """The tree that a machine may find: relative path → bytes, None for a directory.

        Args:
            data, names: The fate of the unsynced changes of files and of directories.
        """
        kept = dict(self._durable)
        journalled = int(rng.integers(0, len(self._changes) + 1))
        for number, change in enumerate(self._changes):
            if (
                names is Fate.KEPT
                or (names is Fate.MIXED and rng.random() < 0.5)
                or (names is Fate.FIRST and number < journalled)
            ):
                _apply(change, kept)
        mixed = rng if data is Fate.MIXED else None
        return {
            os.path.relpath(path, self._root): None if file is None else file.content(data, mixed)
            for path, file in kept.items()
            if all(str(parent) in kept for parent in self._parents(path))
        }

    def durable_length(self, path: Path) -> int:
        """How many bytes of a file have been synced."""
        file = self._names[str(path)]
        assert file is not None
        return len(file.durable)

    def _opened(self, call: Call) -> _File | str:
        if call.path == self._root or self._names.get(call.path, b"") is None:
            return call.path
        if call.path not in self._names:
            self._change(_NameChange(None, call.path, _File()))
        file = self._names[call.path]
        assert file is not None
        if call.flags & os.O_TRUNC:
            file.pending.append((0, None))
        return file

    def _change(self, change: _NameChange) -> None:
        _apply(change, self._names)
        self._changes.append(change)

    def _sync(self, target: _File | str | None) -> None:
        if isinstance(target, _File):
            target.sync()
            return
        mine = [change for change in self._changes if _directory_of(change) == target]
        for change in mine:
            _apply(change, self._durable)
        self._changes = [change for change in self._changes if change not in mine]

    def _parents(self, path: str) -> list[PurePath]:
        inside = PurePath(path).relative_to(self._root).parents
        return [PurePath(self._root, parent) for parent in inside if parent != PurePath(".")]


def make_tree(tree: dict[str, bytes | None], root: Path) -> None:
    """Writes what `after_power_loss` found into an empty directory."""
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def _apply(change: _NameChange, names: dict[str, _File | None]) -> None:
    if change.removed is not None:
        names.pop(change.removed, None)
    if change.added is not None:
        names[change.added] = change.file


def _directory_of(change: _NameChange) -> str:
    return os.path.dirname(str(change.removed or change.added))


def _write(
    data: bytearray, offset: int, written: bytes, fate: Fate, rng: np.random.Generator | None
) -> None:
    end = offset + len(written)
    data.extend(bytes(max(0, end - len(data))))
    if fate is Fate.ZEROED:
        return
    for start in range(offset - offset % SECTOR, end, SECTOR):
        if fate is Fate.MIXED and rng is not None and rng.random() < 0.5:
            continue
        first, last = max(start, offset), min(start + SECTOR, end)
        data[first:last] = written[first - offset : last - offset]
