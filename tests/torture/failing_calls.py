"""Each system call of a writer, a recovery and a resumed writer fails once, in every way it can.

As SQLite's I/O error tests do: a first run counts the calls, then the run is repeated once for each
call and each way to fail. The error must be a CacheIOError that names the file, or the work must go
on and end well; afterwards recovery and resumption must end identical.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faulty_calls
import numpy as np
from faulty_calls import Action, Call, Kind
from isolated import Child, TrialDied, in_child, rows_of_fresh_interpreter
from report import Row, Tally
from workload import Workload, make_workload, recover_and_resume, write

import sparselogits as sl

TEST_SCALE = 0.02
SEED = 30_240_601
WORKLOAD_SEED = 14  # three shards, commits of both kinds
SEQUENCES = 40

Work = Callable[[Path, Callable[[object], None]], object]


@dataclass(frozen=True)
class Fault:
    """A way in which calls of some kinds fail."""

    row: str
    kinds: tuple[Kind, ...]
    action: Action
    error: int = 0
    stays: bool = False


_EVERY = tuple(kind for kind in Kind if kind not in (Kind.ADVISE, Kind.MARK))
_SYNCS = (Kind.SYNC, Kind.DATASYNC)
_NAMES = (Kind.RENAME, Kind.UNLINK, Kind.MKDIR)
_OTHERS = tuple(kind for kind in _EVERY if kind not in _SYNCS)
_GROWING = (Kind.OPEN, Kind.WRITE, Kind.RENAME, Kind.MKDIR)
_SLOW = (Kind.OPEN, Kind.WRITE, Kind.TRUNCATE, *_SYNCS)  # which a signal may interrupt
FAULTS = (
    Fault("EIO from a call", _OTHERS, Action.FAIL, errno.EIO),
    Fault("ENOSPC from a call, once", _GROWING, Action.FAIL, errno.ENOSPC),
    Fault("ENOSPC from a call and all later ones", _GROWING, Action.FAIL, errno.ENOSPC, True),
    Fault("EINTR from a call", _SLOW, Action.FAIL, errno.EINTR),
    Fault("a write takes half of its bytes", (Kind.WRITE,), Action.SHORT),
    Fault("fsync, fdatasync fail with EIO", _SYNCS, Action.FAIL, errno.EIO),
    Fault("fsync, fdatasync fail with ENOSPC", _SYNCS, Action.FAIL, errno.ENOSPC),
    Fault("a name changes, but EIO is reported", _NAMES, Action.FAIL_AFTER, errno.EIO),
    Fault("SIGKILL before a call", _EVERY, Action.KILL_BEFORE),
    Fault("SIGKILL half-way through a write", (Kind.WRITE,), Action.KILL_HALF),
    Fault("SIGKILL after a call", _EVERY, Action.KILL_AFTER),
)


@dataclass(frozen=True)
class Scenario:
    """Work whose calls fail, on a copy of a cache in some state (or on none)."""

    name: str
    work: Work
    state: Path | None
    committed: int


def run(scale: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        library = faulty_calls.build(Path(directory))
        return rows_of_fresh_interpreter("failing_calls", scale, LD_PRELOAD=str(library))


def trials(scale: float, scratch: Path) -> list[Row]:
    rng = np.random.default_rng(SEED)
    workload = make_workload(WORKLOAD_SEED, SEQUENCES)
    tallies = {fault.row: Tally(fault.row) for fault in FAULTS}
    scenarios = _scenarios(workload, scratch)
    numbers = []
    for scenario in scenarios:
        calls = _run(scenario, scratch, -1, Action.PASS).calls
        numbers.append(f"{len(calls)} calls of {scenario.name}")
        for number, call in enumerate(calls):
            for fault in FAULTS:
                if call.kind in fault.kinds and (scale >= 1 or rng.random() < scale):
                    _try(workload, scenario, scratch, calls, number, fault, tallies[fault.row])
    tallies[FAULTS[0].row].note = ", ".join(numbers)
    return [tally.row() for tally in tallies.values()]


def _scenarios(workload: Workload, scratch: Path) -> list[Scenario]:
    """Writing from nothing; recovering and resuming what writers killed at telling calls left."""

    def writing(path: Path, report: Callable[[object], None]) -> None:
        write(workload, path, True, report)

    def recovering(path: Path, _report: Callable[[object], None]) -> None:
        sl.recover(path)

    fresh = Scenario("a writer", writing, None, 0)
    calls = _run(fresh, scratch, -1, Action.PASS).calls
    renames = [i for i, call in enumerate(calls) if call.kind is Kind.RENAME]
    second_seal = [i for i in renames if calls[i].second.endswith(".slc")][1]
    states = {
        "an unfinished shard": (second_seal - 5, Action.KILL_HALF),  # its last commit is torn
        "a shard not yet listed": (renames[renames.index(second_seal) + 1], Action.KILL_BEFORE),
        "a first shard without a commit": (
            next(i for i, call in enumerate(calls) if call.offset and call.kind is Kind.WRITE),
            Action.KILL_AFTER,
        ),
    }
    scenarios = [fresh]
    for name, (number, action) in states.items():
        outcome = _run(fresh, scratch, number, action)
        state = scratch / name.replace(" ", "-")
        outcome.path.rename(state)
        for what, work in (("recovering", recovering), ("resuming", writing)):
            scenarios.append(Scenario(f"{what} {name}", work, state, outcome.committed))
    return scenarios


@dataclass(frozen=True)
class Outcome:
    """What a run with one faulty call came to."""

    path: Path
    calls: list[Call]
    committed: int
    started: bool  # reported something: a writer does when it is open
    error: BaseException | None
    signal: int | None
    hung: bool


def _run(
    scenario: Scenario,
    scratch: Path,
    number: int,
    action: Action,
    error: int = 0,
    stays: bool = False,
) -> Outcome:
    """Does the work in a fork whose call of this number fails."""
    root = Path(tempfile.mkdtemp(dir=scratch))
    path = root / "deep" / "cache"
    if scenario.state is not None:
        shutil.copytree(scenario.state, path)
    log = os.memfd_create("log")

    def work(report: Callable[[object], None]) -> None:
        faulty_calls.watch(root, log)
        faulty_calls.arm(number, action, error, stays)
        scenario.work(path, report)

    child = Child(work)
    messages = child.wait()
    calls = faulty_calls.read_log(os.pread(log, 1 << 26, 0))
    os.close(log)
    assert not any(call.kind is Kind.MARK for call in calls)  # or the numbers would not be those
    errors = [value for kind, value in messages if kind == "error"]
    reports = [value for kind, value in messages if kind == "value"]
    return Outcome(
        path=path,
        calls=calls,
        committed=max([scenario.committed, *(v for v in reports if isinstance(v, int))]),
        started=bool(reports),
        error=errors[0] if errors else None,
        signal=child.signal,
        hung=child.hung,
    )


def _try(
    workload: Workload,
    scenario: Scenario,
    scratch: Path,
    calls: list[Call],
    number: int,
    fault: Fault,
    tally: Tally,
) -> None:
    outcome = _run(scenario, scratch, number, fault.action, fault.error, fault.stays)
    try:
        problem = _misbehaviour(scenario, outcome, calls[number], fault)
        if not problem:
            at_most = _at_most(outcome, calls, number, fault)
            problem = in_child(
                lambda: recover_and_resume(workload, outcome.path, outcome.committed, at_most)
            )
    except (sl.SparseLogitsError, TrialDied, AssertionError) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(outcome.path.parents[1])
    if problem:
        tally.lose(f"{scenario.name}, call {number} {calls[number]}: {problem}")
    elif outcome.error is None and outcome.signal is None:
        tally.harmless += 1
    else:
        tally.recovered += 1


def _misbehaviour(scenario: Scenario, outcome: Outcome, call: Call, fault: Fault) -> str:
    """How the work took the failing call, where it took it wrongly."""
    error = outcome.error
    if outcome.hung:
        return "hung"
    if outcome.signal is not None:
        is_kill = fault.action in (Action.KILL_BEFORE, Action.KILL_HALF, Action.KILL_AFTER)
        return "" if is_kill and outcome.signal == 9 else f"died of signal {outcome.signal}"
    if error is None:
        must_fail = fault.action is Action.FAIL and fault.error != errno.EINTR and not call.error
        may_go_on = call.kind in (Kind.MMAP, Kind.CLOSE)
        return "the failing call went unnoticed" if must_fail and not may_go_on else ""
    if fault.error in (0, errno.EINTR):
        return f"a call that can be repeated was not: {error!r}"
    if not isinstance(error, sl.CacheIOError):
        return f"not a CacheIOError: {error!r}"
    if error.errno != fault.error or not str(error.filename).startswith(
        str(outcome.path.parents[1])
    ):
        return f"the error does not name errno and file: {error!r}"
    before = {file.name for file in scenario.state.iterdir()} if scenario.state else set()
    temporary = {file.name for file in outcome.path.glob(".*")} - before
    if temporary and call.kind is not Kind.UNLINK:
        return f"temporary files were left: {temporary}"
    return ""


def _at_most(outcome: Outcome, calls: list[Call], number: int, fault: Fault) -> int | None:
    """How many sequences may come back: after a commit whose sync failed, no more than before."""
    failed_sync = calls[number].kind is Kind.DATASYNC and fault.action is Action.FAIL
    if not failed_sync or fault.error == errno.EINTR:
        return None
    if not any(
        call.kind is Kind.ADVISE and call.flags == os.POSIX_FADV_DONTNEED for call in outcome.calls
    ):
        raise AssertionError("the kernel was not told to forget what it could not write")
    is_seal = calls[number + 1].kind is Kind.RENAME  # its commit was durable before
    return outcome.committed if outcome.started and not is_seal else None
