"""What a torture run reports: one row for each kind of fault, and the table of all rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

SHOWN_LOSSES = 5


@dataclass(frozen=True)
class Row:
    """What became of the trials of one kind of fault.

    Attributes:
        fault: What was done, in a few words.
        tried: Trials: detected + recovered + harmless + lost.
        detected: Refused with a FormatError, or the fitting error, that names the place.
        recovered: Everything that was committed is back, identical, and nothing else is there.
        harmless: The content is proven identical.
        lost: Anything else: silently wrong data, a crash, a hang, lost committed data.
        note: What a reader of the table must know; of losses the first ones, with their seeds.
    """

    fault: str
    tried: int
    detected: int = 0
    recovered: int = 0
    harmless: int = 0
    lost: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        outcomes = self.detected + self.recovered + self.harmless + self.lost
        if self.tried != outcomes:
            raise ValueError(f"{self.fault}: {self.tried} trials, but {outcomes} outcomes")


class Tally:
    """Counts the outcomes of one kind of fault while a run goes on."""

    def __init__(self, fault: str, note: str = "") -> None:
        self.fault = fault
        self.note = note
        self.detected = self.recovered = self.harmless = 0
        self.losses: list[str] = []

    def lose(self, what: str) -> None:
        """A trial went wrong. `what` says how, with the seed or step that repeats it."""
        self.losses.append(what)
        if len(self.losses) <= SHOWN_LOSSES:
            print(f"LOST: {self.fault}: {what}", file=sys.stderr, flush=True)

    def row(self) -> Row:
        notes = [self.note] if self.note else []
        notes += [f"LOST {what}" for what in self.losses[:SHOWN_LOSSES]]
        lost = len(self.losses)
        return Row(
            fault=self.fault,
            tried=self.detected + self.recovered + self.harmless + lost,
            detected=self.detected,
            recovered=self.recovered,
            harmless=self.harmless,
            lost=lost,
            note="; ".join(notes),
        )


def table(rows: Sequence[tuple[str, Row]]) -> str:
    """A Markdown table of rows, each with the name of its family of faults, and their sums."""
    names = [field.name for field in fields(Row)]
    cells = [["family", *names]]
    for family, row in rows:
        cells.append([family, *(_cell(getattr(row, name)) for name in names)])
    sums = {name: sum(getattr(row, name) for _, row in rows) for name in names[1:-1]}
    cells.append(["all", "", *(f"{value:,}" for value in sums.values()), ""])
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    columns = [(width, name in sums) for width, name in zip(widths, cells[0], strict=True)]
    lines = [
        [
            text.rjust(width) if is_number else text.ljust(width)
            for text, (width, is_number) in zip(row, columns, strict=True)
        ]
        for row in cells
    ]
    rule = ["-" * (width - 1) + ("-", ":")[is_number] for width, is_number in columns]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else " ".join(value.replace("|", "/").split())
