"""Faults of stored bytes: what a reader makes of each, decided by every record."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import children
from adapters.base import Adapter
from faults import Choose, Damage
from layout import layout_of
from records import Record, Source

OUTCOMES = {"error": "detected", "crash": "crash", "hang": "hang"}


def run_reader_trials(
    adapter: Adapter,
    scratch: Path,
    datasets: tuple[list[Record], list[Record]],
    faults: dict[str, Choose],
    trials: int,
    seed: int,
) -> dict[str, Any]:
    """Faults of what one adapter wrote: fault → outcomes, their number, and what was raised.

    Raises:
        RuntimeError: The format does not read back what it wrote; no trial would mean anything.
    """
    path, other = scratch / "dataset", scratch / "other"
    for target, records in zip((path, other), datasets, strict=True):
        written = children.run(lambda t=target, r=records: adapter.write(t, Source(r)), 60)
        if written.kind != "value":
            raise RuntimeError(f"{adapter.name} does not write: {written}")
    expected = [record.encoded for record in datasets[0]]
    if (outcome := children.run(lambda: _compare(adapter, path, expected))).value != "harmless":
        raise RuntimeError(f"{adapter.name} does not read what it wrote: {outcome}")
    layout = layout_of(adapter, path, other)
    report = {}
    for fault, choose in faults.items():
        rng = random.Random(f"{seed} {fault}")
        limit = min(trials, adapter.most, adapter.fewer.get(fault, trials))
        outcomes: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for damage in choose(layout, rng, limit):
            result = _trial(adapter, path, scratch / "trial", damage, expected)
            outcomes[OUTCOMES.get(result.kind, result.value)] += 1
            if result.kind != "value":
                reasons[str(result.value).split(":")[0]] += 1
        report[fault] = {"outcomes": outcomes, "reasons": reasons}
    return report


def _trial(
    adapter: Adapter, path: Path, trial: Path, damage: Damage, expected: list[bytes]
) -> children.Result:
    copy = trial / "data"
    shutil.copytree(path, copy, copy_function=os.link)
    try:
        damage(copy)
        return children.run(lambda: _compare(adapter, copy, expected))
    finally:
        shutil.rmtree(trial)


def _compare(adapter: Adapter, path: Path, expected: list[bytes]) -> str:
    """Reads until the first record that is not what was written: from there on it is too late."""
    number = 0
    for record in adapter.read(path):
        if number == len(expected) or record != expected[number]:
            return "silent"
        number += 1
    return "harmless" if number == len(expected) else "silent"
