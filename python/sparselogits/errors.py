"""Everything that sparselogits raises. All of it derives from `SparseLogitsError`."""

from __future__ import annotations


class SparseLogitsError(Exception):
    """The base of every error raised by sparselogits."""


class InvalidArgumentError(SparseLogitsError, ValueError):
    """An argument is wrong; nothing was written or changed."""


class FormatError(SparseLogitsError):
    """The bytes of a cache are not what the format promises.

    Attributes:
        path: The file, or None where no file is involved.
        offset: The byte in that file where the fault was found, or None.
        field: The field of the format, as named in `formats/v1.md`, or None.
    """

    def __init__(
        self,
        message: str,
        path: str | None = None,
        offset: int | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, path, offset, field)
        self.message = message
        self.path = path
        self.offset = offset
        self.field = field

    def __str__(self) -> str:
        where = [self.path] if self.path is not None else []
        if self.offset is not None:
            where.append(f"byte {self.offset}")
        if self.field is not None:
            where.append(f"field {self.field}")
        return f"{', '.join(where)}: {self.message}" if where else self.message


class CorruptionError(FormatError):
    """Bytes that contradict themselves, a checksum or a limit."""


class TruncatedError(FormatError):
    """A file that ends too early."""


class UnsupportedError(FormatError):
    """A version, feature or codec that this release does not know."""


class MismatchError(SparseLogitsError, ValueError):
    """Two valid things that do not belong together."""


class VocabularyMismatchError(MismatchError):
    """A teacher, cache or student whose vocabularies disagree."""


class FingerprintMismatchError(MismatchError):
    """Tokens or a tokenizer other than those that the teacher saw."""


class SequenceNotFoundError(SparseLogitsError, KeyError, IndexError):
    """No sequence has this index or sequence_id."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class CacheIOError(SparseLogitsError, OSError):
    """The operating system refused: disk full, permission, a lock held by another writer."""
