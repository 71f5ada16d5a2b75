"""Faults while writing: what is left of a dataset, as it lies and after the format's own repair."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import children
from adapters.base import Adapter
from records import RECORDS, Record, Source
from small_disk import mount_small

_PAUSE = 0.002
_KILL_SPREAD = 0.006
_WRITE_SECONDS = 60.0
_KILL_ATTEMPTS = 20

Trial = dict[str, Any]


def run_writer_trials(
    adapter: Adapter, scratch: Path, records: list[Record], trials: int, seed: int
) -> dict[str, list[Trial]]:
    """Every fault of writers, `trials` times; see `_state` for what a trial says."""
    found: dict[str, list[Trial]] = {fault: [] for fault in _FAULTS}
    for fault, trial in _FAULTS.items():
        rng = random.Random(f"{seed} {fault}")
        if fault == _RESUMED and not adapter.can_resume:
            continue
        for _ in range(trials):
            directory = scratch / "writing"
            directory.mkdir()
            found[fault].append(trial(adapter, directory / "data", records, rng))
            shutil.rmtree(directory)
    return found


def _killed(adapter: Adapter, path: Path, records: list[Record], rng: random.Random) -> Trial:
    """SIGKILL to the writer and its workers."""
    source = _kill(adapter, path, records, rng)
    return _state(adapter, path, records, source)


def _resumed(adapter: Adapter, path: Path, records: list[Record], rng: random.Random) -> Trial:
    """A second writer goes on after SIGKILL, until everything is written."""
    _kill(adapter, path, records, rng)
    result = children.run(lambda: adapter.resume(path, Source(records)), _WRITE_SECONDS)
    whole = Source(records)
    whole.progress.append(len(records))
    return {"resumed": _shown(result), **_state(adapter, path, records, whole)}


def _kill(adapter: Adapter, path: Path, records: list[Record], rng: random.Random) -> Source:
    """Leaves what a writer leaves that was killed before it had its last record."""
    for _ in range(_KILL_ATTEMPTS):
        source = Source(records, pause=_PAUSE)
        child = children.spawn(lambda source=source: adapter.write(path, source))
        moment = rng.randrange(4, RECORDS)
        deadline = time.monotonic() + _WRITE_SECONDS
        while source.progress.appended < moment and time.monotonic() < deadline:
            time.sleep(_PAUSE / 10)
        time.sleep(rng.random() * _KILL_SPREAD)
        killed = os.WIFSIGNALED(children.kill_group(child))
        if killed and source.progress.appended < RECORDS - 1:
            return source
        shutil.rmtree(path)  # the writer was faster: it had only its index left to write
    raise RuntimeError(f"{adapter.name} was never killed in {_KILL_ATTEMPTS} attempts")


def _disk_full(adapter: Adapter, path: Path, records: list[Record], rng: random.Random) -> Trial:
    """A file system with room for a part of the dataset, at the writer and afterwards."""
    size = int(rng.uniform(0.1, 0.9) * _size(adapter, path.parent / "whole", records))
    source = Source(records)

    def on_small_disk() -> Trial:
        mount_small(path.parent, size)
        result = children.run(lambda: adapter.write(path, source), _WRITE_SECONDS)
        return {"written": _shown(result), **_state(adapter, path, records, source)}

    result = children.run(on_small_disk, 3 * _WRITE_SECONDS)
    if result.kind != "value":
        raise RuntimeError(f"a full disk could not be tried: {result}")
    trial: Trial = result.value
    return trial


def _size(adapter: Adapter, path: Path, records: list[Record]) -> int:
    """Bytes of the whole dataset; the directory is gone again."""
    written = children.run(lambda: adapter.write(path, Source(records)), _WRITE_SECONDS)
    if written.kind != "value":
        raise RuntimeError(f"{adapter.name} does not write: {written}")
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return size


def _raised(adapter: Adapter, path: Path, records: list[Record], rng: random.Random) -> Trial:
    """The code around the writer raises, inside `with` where there is one."""
    source = Source(records, fail_at=rng.randrange(4, RECORDS))
    result = children.run(lambda: adapter.write(path, source), _WRITE_SECONDS)
    return {"written": _shown(result), **_state(adapter, path, records, source)}


_RESUMED = "resumed"
_FAULTS: dict[str, Callable[[Adapter, Path, list[Record], random.Random], Trial]] = {
    "killed": _killed,
    "disk full": _disk_full,
    "exception": _raised,
    _RESUMED: _resumed,
}


def _state(adapter: Adapter, path: Path, records: list[Record], source: Source) -> Trial:
    """What a directory gives, first as it lies and then after the format's own repair.

    Returns:
        `appended` and `committed` records; `as_it_lies`, how it answers a reader: "refused",
        "crash", "hang", "complete" (all RECORDS), "marked" (fewer, and the format says so),
        "partial" (fewer, without a word) or "wrong" (a record that nobody wrote, or another
        order); `reason`, the error; `readable` records, as it lies or after repair, whichever is
        more; `lost`, the committed ones that are not among them; `wrong`, whether they are
        anything but the first ones in order.
    """
    number = {record.encoded: index for index, record in enumerate(records)}

    def numbers(read: Callable[[], Iterable[bytes]]) -> list[int]:
        return [number.get(record, -1) for record in read()]

    def as_it_lies() -> tuple[list[int], bool]:
        return numbers(lambda: adapter.read(path)), adapter.marked_unfinished(path)

    raw = children.run(as_it_lies)
    salvaged = children.run(lambda: numbers(lambda: adapter.salvage(path)))
    found = raw.value[0] if raw.kind == "value" else []
    repaired = salvaged.value if salvaged.kind == "value" else []
    readable = max(found, repaired, key=len)
    return {
        # A writer may be killed after it took a record and before that was counted.
        "appended": max(source.progress.appended, len(readable)),
        "committed": source.progress.committed,
        "as_it_lies": _answer(raw),
        "reason": None if raw.kind == "value" else _first_line(raw.value),
        "readable": len(readable),
        "lost": len(set(range(source.progress.committed)) - set(readable)),
        "wrong": readable != list(range(len(readable))),
    }


def _answer(raw: children.Result) -> str:
    if raw.kind != "value":
        return "refused" if raw.kind == "error" else raw.kind
    found, marked = raw.value
    if found != list(range(len(found))):
        return "wrong"
    if len(found) == RECORDS:
        return "complete"
    return "marked" if marked else "partial"


def _shown(result: children.Result) -> str:
    return "no error" if result.kind == "value" else f"{result.kind}: {_first_line(result.value)}"


def _first_line(text: object) -> str:
    return str(text).split("\n")[0]
