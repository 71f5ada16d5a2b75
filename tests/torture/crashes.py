"""SIGKILL at random moments: of writers, several at once, of resuming ones, and of recoveries.

Each cache is killed several times in a row, each time in one of four occupations; after each kill
a copy of what is left must recover, resume and end identical, and the next kill hits the original.
The moment is uniform over the life of the occupation, its first millisecond included.
"""

from __future__ import annotations

import errno
import select
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from isolated import HANG_SECONDS, Child, TrialDied, in_child, rows_of_fresh_interpreter
from report import Row, Tally
from workload import Workload, make_workload, recover_and_resume, write

import sparselogits as sl

TEST_SCALE = 0.025
SEED = 20_240_601
KILLS = 1500
KILLS_OF_A_CACHE = 5
WRITERS = 3  # at once, each in a cache of its own
WRITING, CLOSING, STARTING, RECOVERING = OCCUPATIONS = (
    "SIGKILL of writers: appending, committing, rolling over",
    "SIGKILL of writers: closing",
    "SIGKILL of writers: starting to resume",
    "SIGKILL of recoveries",
)
SHARES = (0.4, 0.2, 0.2, 0.2)


def run(scale: float) -> list[Row]:
    return rows_of_fresh_interpreter("crashes", scale)


def trials(scale: float, scratch: Path) -> list[Row]:
    tallies = {name: Tally(name) for name in OCCUPATIONS}
    states: Counter[str] = Counter()
    lives = _Lives(scratch)
    kills, seed = 0, SEED
    while kills < max(1, round(KILLS * scale)):
        lives.measure_all(seed)
        victims = [_Victim(seed + number, scratch) for number in range(WRITERS)]
        for _ in range(KILLS_OF_A_CACHE):
            for victim in victims:
                victim.start(lives)
            _kill_on_time(victims)
            for victim in victims:
                kills += victim.account(tallies[victim.occupation], states)
        for victim in victims:
            victim.remove()
        seed += WRITERS
    found = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    tallies[WRITING].note = f"{WRITERS} writers at once; all kills left: {found}"
    return [tally.row() for tally in tallies.values()]


@dataclass
class _Lives:
    """How long each occupation lasts undisturbed, in seconds: the median of the latest five.

    They are measured all the time: a busy machine must not move the kills to the start.
    """

    scratch: Path
    seen: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for seed in range(4):
            self.measure_all(seed)

    def measure_all(self, seed: int) -> None:
        workload, path = make_workload(seed), self.scratch / "undisturbed"
        closing: list[float] = []
        # Also loads everything that the forks will need.
        write(workload, path, closing=lambda: closing.append(time.monotonic()))
        self.add(CLOSING, time.monotonic() - closing[0])
        shutil.rmtree(path)
        self.measure(WRITING, lambda: write(workload, path))
        self.measure(RECOVERING, lambda: sl.recover(path))
        self.measure(STARTING, lambda: write(workload, path, resume=True))
        assert not recover_and_resume(workload, path, workload.num_sequences)
        shutil.rmtree(path)

    def measure(self, occupation: str, work: Callable[[], object]) -> None:
        started = time.monotonic()
        in_child(work)
        self.add(occupation, time.monotonic() - started)

    def add(self, occupation: str, seconds: float) -> None:
        self.seen.setdefault(occupation, []).append(seconds)

    def of(self, occupation: str) -> float:
        return statistics.median(self.seen[occupation][-5:])


class _Victim:
    """A cache whose processes are killed, and what it is known to hold."""

    def __init__(self, seed: int, scratch: Path) -> None:
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.workload: Workload = make_workload(seed, int(self.rng.integers(5, 80)))
        self.path = scratch / f"cache-{seed}"
        self.committed = 0
        self.step = 0

    def start(self, lives: _Lives) -> None:
        """Forks a process at work on the cache and draws the moment at which it is to die."""
        is_begun = self.path.exists() and any(self.path.iterdir())
        occupation = str(self.rng.choice(OCCUPATIONS, p=SHARES)) if is_begun else WRITING
        self.occupation = occupation
        self.step += 1
        self._delay = lives.of(occupation) * float(self.rng.uniform(0, 1.2))
        self.child = Child(
            _recover(self.path, self.committed) if occupation == RECOVERING else self._write
        )
        wait = HANG_SECONDS if occupation == CLOSING else self._delay  # close: see hear()
        self.deadline = self.child.started + wait

    def hear(self) -> bool:
        """Takes what the process reports; False when it has ended."""
        alive = self.child.read()
        if self.occupation == CLOSING and ("value", "closing") in self.child.messages:
            self.deadline = min(self.deadline, time.monotonic() + self._delay)
        return alive

    def account(self, tally: Tally, states: Counter[str]) -> int:
        """Judges what the process left; returns whether it was killed."""
        messages = self.child.wait()
        where = f"seed {self.seed}, kill {self.step}, after {1e3 * self._delay:.2f} ms"
        errors = [value for kind, value in messages if kind == "error"]
        if self.child.hung or errors or self.child.signal not in (None, 9):
            ending = errors or ("hung" if self.child.hung else f"signal {self.child.signal}")
            tally.lose(f"{where}: {ending}")
            return 1
        reports = [value for kind, value in messages if kind == "value"]
        self.committed = max([self.committed, *(v for v in reports if isinstance(v, int))])
        if self.child.signal is None:  # it was faster
            return 0
        states[_state(self.path)] += 1
        problem = self._problem()
        if problem:
            tally.lose(f"{where}: {problem}")
        else:
            tally.recovered += 1
        return 1

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, report: Callable[[object], None]) -> None:
        write(self.workload, self.path, True, report, lambda: report("closing"))

    def _problem(self) -> str:
        copy = self.path.with_name(f"copy-{self.seed}")
        if self.path.exists():
            shutil.copytree(self.path, copy)
        recover = bool(self.path.exists() and self.rng.random() < 0.7)
        try:
            return in_child(
                lambda: recover_and_resume(self.workload, copy, self.committed, recover=recover)
            )
        except (sl.SparseLogitsError, TrialDied) as error:
            return f"{type(error).__name__}: {error}"
        finally:
            shutil.rmtree(copy, ignore_errors=True)


def _kill_on_time(victims: list[_Victim]) -> None:
    """Kills each process at its deadline, unless it ends before."""
    alive = list(victims)
    while alive:
        pipes = [victim.child.pipe for victim in alive]
        wait = max(0.0, min(victim.deadline for victim in alive) - time.monotonic())
        readable = select.select(pipes, [], [], wait)[0]
        alive = [v for v in alive if v.child.pipe not in readable or v.hear()]
        for victim in [v for v in alive if v.deadline <= time.monotonic()]:
            victim.child.kill()
            alive.remove(victim)


def _recover(path: Path, committed: int) -> Callable[[Callable[[object], None]], None]:
    def work(_report: Callable[[object], None]) -> None:
        try:
            sl.recover(path)
        except sl.CacheIOError as error:
            if error.errno != errno.ENOENT or committed:
                raise  # else the writer died before there was a cache

    return work


def _state(path: Path) -> str:
    """What a kill left, as seen in the directory."""
    names = sorted(file.name for file in path.iterdir()) if path.exists() else []
    if any(name.endswith(".tmp") for name in names):
        return "with a manifest half written"
    if any(name.endswith(".partial") for name in names):
        return "with an unfinished shard"
    if "manifest.json" not in names:
        return "with finished shards only" if names else "with nothing"
    listed = {row.file for row in sl.open(path).manifest.shards}
    return "with a shard not yet listed" if len(names) - 1 > len(listed) else "between shards"
