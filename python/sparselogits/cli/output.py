"""Reports for machines (`--json`), reports for people, and progress on a terminal."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_REPORT_SECONDS = 0.2


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types: NaN and infinities, which JSON lacks, become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def print_json(report: Any) -> None:
    """One JSON value on stdout."""
    text = json.dumps(jsonable(report), indent=2, allow_nan=False, ensure_ascii=False)
    print(harmless(text, keep="\n"))


def harmless(text: str, keep: str = "") -> str:
    """`text` with what a terminal would obey, or not show, as JSON escapes: a cache may hold it."""
    return "".join(
        char if char.isprintable() or char in keep else json.dumps(char)[1:-1] for char in text
    )


def print_report(report: Any) -> None:
    """Nested mappings as indented `name  value` lines; lists of mappings, and
    mappings of like mappings, as tables."""
    for line in report_lines(jsonable(report)):
        print(line)


def report_lines(report: Mapping[str, Any], indent: str = "") -> Iterable[str]:
    """The lines of `print_report`. Scalars come first, so that a section ends visibly."""
    plain = {name: item for name, item in report.items() if not _is_section(item)}
    width = max((len(_label(name)) for name in plain), default=0)
    for name, item in plain.items():
        yield f"{indent}{_label(name):<{width}}  {show_value(item)}".rstrip()
    for name, item in report.items():
        if not _is_section(item):
            continue
        yield f"{indent}{_label(name)}"
        inner = indent + "  "
        if isinstance(item, Mapping):
            rows = _rows(item)
            yield from report_lines(item, inner) if not rows else map(inner.__add__, table(rows))
        else:
            yield from (inner + line for line in table(item))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows under the names of their columns: numbers to the right, text to the left.

    Args:
        rows: Mappings with the same keys; those of the first row are the columns, except where
            it has a mapping: that is for `--json`.
    """
    names = [name for name, item in rows[0].items() if not isinstance(item, Mapping)]
    cells = [[_label(name) for name in names]]
    cells += [[show_value(row.get(name)) for name in names] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    numeric = [isinstance(rows[0][name], (int, float)) for name in names]
    return [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]


def show_value(value: Any) -> str:
    """A value for people: thousands separated, floats to four significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(show_value(item) for item in value) or "-"
    return harmless(str(value))


def discard_stdout() -> None:
    """Lets the interpreter's last flush of a closed pipe go nowhere instead of failing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """A line on stderr that is rewritten in place, where stderr is a terminal.

    Call it with (done, total) in any unit; use it as a context manager so that the line ends.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._on_terminal = sys.stderr.isatty()
        self._next = 0.0
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._on_terminal or (now < self._next and done < total):
            return
        self._next = now + _REPORT_SECONDS
        self._shown = True
        percent = 100.0 * done / total if total else 100.0
        print(f"\r\x1b[K{self._label}: {percent:5.1f} %", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(file=sys.stderr)


def _is_section(value: Any) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a mapping of mappings that have the same scalar fields; else none."""
    items = list(report.values())
    if len(items) < 2 or not all(isinstance(item, Mapping) for item in items):
        return []
    if any(list(item) != list(items[0]) or any(map(_is_section, item.values())) for item in items):
        return []
    return [{"name": _label(name), **item} for name, item in report.items()]


def _label(name: str) -> str:
    return harmless(name.replace("_", " "))
