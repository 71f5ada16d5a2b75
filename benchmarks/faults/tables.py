"""The Markdown tables of a run's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from faults import EQUAL_SIZE_FAULTS, FAULTS

_ORDER = ("silent", "crash", "hang", "detected", "harmless")
_ANSWERS = ("wrong", "crash", "hang", "partial", "marked", "refused", "complete")

Rows = Sequence[dict[str, Any]]


def stored_faults(rows: Rows) -> str:
    """What readers make of damaged files."""
    faults = [*FAULTS, *EQUAL_SIZE_FAULTS]
    body = [[row["name"], *(_outcomes(row["stored"][fault]) for fault in faults)] for row in rows]
    return _table(["", *faults], body)


def writing_faults(rows: Rows) -> str:
    """What writers leave behind."""
    header = [
        "",
        "kill -9: as it lies",
        "readable",
        "committed, lost",
        "disk full: the writer",
        "as it lies",
        "readable",
        "exception: as it lies",
        "readable",
        "resume",
    ]
    body = []
    for row in rows:
        if (writing := row["writing"]) is None:
            continue
        killed, full, raised = (writing[name] for name in ("killed", "disk full", "exception"))
        body.append(
            [
                row["name"],
                _answers(killed),
                _readable(killed),
                _lost(killed),
                _errors(full),
                _answers(full),
                _readable(full),
                _answers(raised),
                _readable(raised),
                _resumed(writing["resumed"]),
            ]
        )
    return _table(header, body)


def settings(rows: Rows) -> str:
    """Versions, settings, and what each format offers after a crash."""
    body = [
        [
            row["name"],
            f"{row['package']} {row['version']}",
            row["settings"],
            row["repair"] or "none",
            row["appending"],
        ]
        for row in rows
    ]
    return _table(["", "version", "settings", "repair", "appending after a crash"], body)


def _outcomes(report: dict[str, Any]) -> str:
    counts = report["outcomes"]
    shown = [f"{counts[kind]} {kind}" for kind in _ORDER if counts.get(kind)]
    return ", ".join(shown) or "–"


def _answers(trials: Rows) -> str:
    counts = Counter(trial["as_it_lies"] for trial in trials)
    return ", ".join(f"{counts[kind]} {kind}" for kind in _ANSWERS if counts[kind])


def _readable(trials: Rows) -> str:
    appended = sum(trial["appended"] for trial in trials)
    shown = f"{100 * sum(trial['readable'] for trial in trials) / appended:.0f} %"
    wrong = sum(trial["wrong"] for trial in trials)
    return f"{shown}, {wrong} wrong" if wrong else shown


def _lost(trials: Rows) -> str:
    committed = sum(trial["committed"] for trial in trials)
    lost = sum(trial["lost"] for trial in trials)
    return f"{lost} of {committed}" if committed else "no commit before the end"


def _errors(trials: Rows) -> str:
    raised = sum(trial["written"].startswith("error") for trial in trials)
    return f"{raised} of {len(trials)} raise"


def _resumed(trials: Rows) -> str:
    if not trials:
        return "cannot"
    identical = sum(trial["as_it_lies"] == "complete" for trial in trials)
    raised = sum(trial["resumed"].startswith("error") for trial in trials)
    return f"{identical} of {len(trials)} identical" + (f", {raised} raise" if raised else "")


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
