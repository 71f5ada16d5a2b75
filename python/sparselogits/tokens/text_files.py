"""Plain text: `.txt`, each file a document, and `.jsonl`, each line one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparselogits.durable import io_error
from sparselogits.errors import CorruptionError, InvalidArgumentError
from sparselogits.tokens.rows import BATCH_BYTES, BATCH_ROWS, RowBatch

_LONGEST_TEXT = 256 << 20  # tokenizers need dozens of bytes for each


class TextFiles:
    """UTF-8 files as documents. A `RowReader`.

    Line ends are kept as they are.

    Raises:
        CacheIOError: A file cannot be read.
        InvalidArgumentError: A file is larger than 256 MiB.
        CorruptionError: A file is not UTF-8 (while reading).
    """

    holds_text = True

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self.label = f"text {Path(name).name}"
        self._paths = paths
        self.size = sum(_sizes(paths))
        for path, size in zip(paths, _sizes(paths), strict=True):
            if size > _LONGEST_TEXT:
                raise InvalidArgumentError(
                    f"{path}: has {size} bytes, but a document of text at most {_LONGEST_TEXT}; "
                    "write documents as lines of a .jsonl"
                )

    def batches(self) -> Iterator[RowBatch]:
        """A file each."""
        done = 0
        for path in self._paths:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise io_error(error, "cannot read", path) from error
            done += len(data)
            yield RowBatch(str(path), [0], "", done, texts=[_decoded(data, path, 0)])


class JsonLines:
    """Files with a JSON object a line, one of whose fields is the text. A `RowReader`.

    Lines of white space only are no documents.

    Raises:
        CacheIOError: A file cannot be read.
        CorruptionError: A line is not UTF-8 or no JSON object, or its field is not text (while
            reading); the message names the line.
    """

    holds_text = True

    def __init__(self, paths: Sequence[Path], name: str, field: str) -> None:
        self.name = name
        self.label = f"JSON lines {Path(name).name}, field {field}"
        self._paths = paths
        self._field = field
        self.size = sum(_sizes(paths))

    def batches(self) -> Iterator[RowBatch]:
        """Up to 512 lines or 4 MiB each."""
        before = 0  # bytes of the files that are done
        for path in self._paths:
            texts: list[str] = []
            lines: list[int] = []
            offset = start = 0  # of the line, and of the first one of this batch
            for number, data in enumerate(_lines(path), 1):
                if data.strip():
                    texts.append(self._text(data, path, number, offset))
                    lines.append(number)
                offset += len(data)
                if len(texts) == BATCH_ROWS or (offset - start > BATCH_BYTES and texts):
                    yield RowBatch(str(path), lines, "line", before + offset, texts=texts)
                    texts, lines, start = [], [], offset
            before += offset
            if texts:
                yield RowBatch(str(path), lines, "line", before, texts=texts)

    def _text(self, data: bytes, path: Path, number: int, offset: int) -> str:
        def wrong(complaint: str) -> CorruptionError:
            return CorruptionError(f"line {number} {complaint}", str(path), offset, self._field)

        try:
            row: Any = json.loads(_decoded(data, path, offset))
        except (ValueError, RecursionError) as error:
            raise wrong(f"is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise wrong(f"is no JSON object: {data[:40]!r}")
        if self._field not in row:
            raise wrong(f"lacks the field; its fields: {', '.join(map(repr, row)) or 'none'}")
        text = row[self._field]
        if not isinstance(text, str):
            raise wrong(f"must hold text there, got {json.dumps(text)[:40]}")
        if b"\\u" in data:  # JSON can name half a character, which is no text
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise wrong(f"holds no text: {error.reason}") from error
        return text


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise io_error(error, "cannot read", path) from error


def _sizes(paths: Sequence[Path]) -> list[int]:
    sizes = []
    for path in paths:
        try:
            sizes.append(path.stat().st_size)
        except OSError as error:
            raise io_error(error, "cannot read", path) from error
    return sizes


def _decoded(data: bytes, path: Path, offset: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = data[error.start : error.start + 4]
        raise CorruptionError(
            f"is not UTF-8: {wrong!r} ({error.reason})", str(path), offset + error.start
        ) from error
