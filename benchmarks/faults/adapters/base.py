"""What the harness asks of a format."""

from __future__ import annotations

import importlib.metadata
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from records import Source

Range = tuple[int, int]


class Adapter(ABC):
    """A format with one choice of its settings.

    Attributes:
        name: The row's name in the table.
        package: The distribution whose version is shown.
        settings: What was chosen, for the notes below the table.
        repair: What the format offers after a crash, for the notes; "" for nothing.
        appending: What it offers to go on after a crash, for the notes.
        writes: Whether the faults of writers are tried with these settings.
        most: Trials of a fault, where each takes long.
        fewer: The same for single faults.
    """

    name: str
    package: str
    settings: str
    repair = ""
    appending = ""
    writes = False
    most = 1 << 30
    fewer: dict[str, int] = {}  # noqa: RUF012

    @abstractmethod
    def write(self, path: Path, source: Source) -> None:
        """Writes a dataset the way the format's documents do, `source.progress.commit` included.

        An exception of `source` reaches the format's own writer, as in a `with` of its user.
        """

    @abstractmethod
    def read(self, path: Path) -> Iterator[bytes]:
        """All records in order, each as `Record.encoded`; what the format notices is raised."""

    @abstractmethod
    def data_files(self, path: Path) -> list[Path]:
        """The files that hold records, in order."""

    def index_files(self, path: Path) -> list[Path]:
        """The files that hold only what is about records."""
        return []

    def index_ranges(self, path: Path) -> list[tuple[Path, Range]]:
        """Where the dataset says what it holds: whole files, or parts of data files."""
        return [(file, (0, file.stat().st_size)) for file in self.index_files(path)]

    @abstractmethod
    def units(self, file: Path) -> list[list[Range]]:
        """The records, batches or blocks of a data file, in groups that can be exchanged."""

    def salvage(self, path: Path) -> list[bytes]:
        """What the format gives back of an unfinished dataset, by its own means."""
        return []

    def marked_unfinished(self, path: Path) -> bool:
        """Whether a dataset that can be read says that records may be missing."""
        return False

    def resume(self, path: Path, source: Source) -> None:
        """Goes on after a crash until all of `source` is written; only where `appending` can."""
        raise NotImplementedError

    @property
    def can_resume(self) -> bool:
        return type(self).resume is not Adapter.resume

    def version(self) -> str:
        return importlib.metadata.version(self.package)
