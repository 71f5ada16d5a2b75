"""`Fault`: one thing that is wrong with a cache, and the sequences that it concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparselogits.errors import FormatError, SparseLogitsError

_MAX_SHOWN_IDS = 4


@dataclass(frozen=True)
class Fault:
    """One fault, as `sparselogits.verify` finds it.

    Attributes:
        error: Name of the exception that it is raised as: `CorruptionError`, `TruncatedError`,
            `UnsupportedError` or `CacheIOError`.
        path: The file.
        offset: The byte in it, or None.
        field: The field of the format, as named in `formats/v1.md`, or None.
        reason: What is wrong, with the value and the limit.
        first_sequence, last_sequence: The sequences concerned, by their index in the cache, the
            second one excluded. Equal where all data can be read all the same.
        sequence_ids: Their ids; empty where the file no longer tells.
    """

    error: str
    path: str | None
    offset: int | None
    field: str | None
    reason: str
    first_sequence: int = 0
    last_sequence: int = 0
    sequence_ids: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, error: SparseLogitsError, first: int = 0, last: int = 0, ids: tuple[int, ...] = ()
    ) -> Fault:
        """The fault that an exception reports; `first` to `last` are the sequences concerned."""
        reason = getattr(error, "message", None) or str(getattr(error, "strerror", None) or error)
        path = getattr(error, "path", None) or getattr(error, "filename", None)
        offset, field = getattr(error, "offset", None), getattr(error, "field", None)
        return cls(type(error).__name__, path, offset, field, reason, first, last, ids)

    @property
    def concerns(self) -> str:
        """The sequences concerned, in words; empty where there are none."""
        number = self.last_sequence - self.first_sequence
        if number == 0:
            return ""
        indices = f"{self.first_sequence}"
        if number > 1:
            indices += f" to {self.last_sequence - 1}"
        ids = ", ".join(map(str, self.sequence_ids[:_MAX_SHOWN_IDS]))
        more = ", ..." if len(self.sequence_ids) > _MAX_SHOWN_IDS else ""
        plural = "s" if number > 1 else ""
        return f"sequence{plural} {indices}" + (f" (sequence_id {ids}{more})" if ids else "")

    def raised(self, error: SparseLogitsError) -> SparseLogitsError:
        """`error`, of which this is the fault, with the sequences concerned in its message."""
        if not self.concerns or not isinstance(error, FormatError):
            return error
        message = f"{error.message}; it concerns {self.concerns}"
        return type(error)(message, error.path, error.offset, error.field)

    def __str__(self) -> str:
        where: list[Any] = [self.path]
        where += [] if self.offset is None else [f"byte {self.offset}"]
        where += [] if self.field is None else [f"field {self.field}"]
        text = f"{', '.join(filter(None, where))}: {self.reason}"
        return f"{text}; it concerns {self.concerns}" if self.concerns else text
