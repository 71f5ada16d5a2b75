"""A loss of power at each system call: what was not synced is lost, torn, zeroed or out of order.

The calls of real writers, recoveries and resumed writers are logged and replayed on a simulated
disk; the trees that a machine may find afterwards must recover, resume and end identical. And what
follows the last sync of a shard is cut, overwritten with garbage, and with another shard's bytes.
"""

from __future__ import annotations

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
from simulated_disk import Fate, SimulatedDisk, make_tree
from workload import Workload, make_workload, recover_and_resume, write

import sparselogits as sl

TEST_SCALE = 0.03
SEED = 50_240_601
WORKLOAD_SEEDS = (14, 1, 8, 3)  # small shards, of counts and of weights; one large one
SEQUENCES = 40
CACHE = Path("deep", "cache")
FATES = (  # of unsynced data and of unsynced names
    (Fate.LOST, Fate.LOST),
    (Fate.LOST, Fate.KEPT),
    (Fate.ZEROED, Fate.KEPT),
    (Fate.KEPT, Fate.LOST),
    (Fate.MIXED, Fate.FIRST),
    (Fate.MIXED, Fate.MIXED),
    (Fate.MIXED, Fate.MIXED),
)


def run(scale: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        library = faulty_calls.build(Path(directory))
        return rows_of_fresh_interpreter("power_loss", scale, LD_PRELOAD=str(library))


def trials(scale: float, scratch: Path) -> list[Row]:
    writing = Tally("power lost while writing")
    again = Tally("power lost while recovering or resuming after SIGKILL")
    twice = Tally("power lost while recovering or resuming after a power loss")
    tails = {name: Tally(f"after the last sync: {name}") for name in _TAILS}
    for seed in WORKLOAD_SEEDS[: max(1, round(len(WORKLOAD_SEEDS) * scale))]:
        rng = np.random.default_rng([SEED, seed])
        run = _Run(make_workload(seed, SEQUENCES), seed, scale, scratch, rng)
        trees = run.lose_power_in_writer(writing)
        run.lose_power_after_kills(again)
        run.lose_power_twice(twice, trees)
        run.damage_tails(tails)
    return [tally.row() for tally in (writing, again, twice, *tails.values())]


Work = Callable[[Path, Callable[[object], None]], object]


@dataclass(frozen=True)
class _Tree:
    """What a machine may find, and how many of its sequences were committed."""

    files: dict[str, bytes | None]
    committed: int


class _Run:
    """The trials with one workload."""

    def __init__(
        self,
        workload: Workload,
        seed: int,
        scale: float,
        scratch: Path,
        rng: np.random.Generator,
    ) -> None:
        self._workload = workload
        self._seed = seed
        self._scale = scale
        self._scratch = scratch
        self._rng = rng

    def lose_power_in_writer(self, tally: Tally) -> list[_Tree]:
        """At each call of a writer. Returns the trees that were found."""
        root = self._directory()
        disk = SimulatedDisk(root)
        self._calls = self._log(root, self._write)
        return self._lose_power(disk, self._calls, "writing", tally)

    def lose_power_after_kills(self, tally: Tally) -> None:
        """At each call of what follows a writer that was killed with changes still unsynced."""
        for number in self._rng.integers(0, _length(self._calls), 10):
            for name, work in (("recovering", self._recover), ("resuming", self._write)):
                root = self._directory()
                disk = SimulatedDisk(root)
                for call in self._log(root, self._write, number):
                    disk.replay(call)
                self._follow(root, disk, work, f"{name} after SIGKILL at call {number}", tally)

    def lose_power_twice(self, tally: Tally, trees: list[_Tree]) -> None:
        """At each call of what follows a power loss."""
        for number in self._rng.integers(0, len(trees), 10 if trees else 0):
            for name, work in (("recovering", self._recover), ("resuming", self._write)):
                root = self._directory()
                make_tree(trees[number].files, root)
                disk = SimulatedDisk(root)
                disk.mark = trees[number].committed
                self._follow(root, disk, work, f"{name} after power loss {number}", tally)

    def damage_tails(self, tallies: dict[str, Tally]) -> None:
        """Other bytes after the last sync of an unfinished shard."""
        root = self._directory()
        disk = SimulatedDisk(root)
        seal = max(i for i, call in enumerate(self._calls) if call.second.endswith(".slc"))
        for call in self._log(root, self._write, _length(self._calls[:seal]) - 2):
            disk.replay(call)
        (partial,) = (root / CACHE).glob("*.partial")
        whole = partial.read_bytes()
        synced = whole[: disk.durable_length(partial)]
        other = _other_shard(self._workload, self._directory())
        for name, tail_of in _TAILS.items():
            for trial in range(max(2, round(100 * self._scale))):
                rng = np.random.default_rng([SEED, self._seed, trial])
                partial.write_bytes(synced + tail_of(whole, len(synced), other, rng))
                copy = self._directory()
                shutil.copytree(root, copy, dirs_exist_ok=True)
                self._judge(copy, disk.mark, f"tail {trial}", tallies[name])

    def _write(self, path: Path, _report: Callable[[object], None]) -> None:
        write(self._workload, path, resume=True, committed=faulty_calls.mark)

    def _recover(self, path: Path, _report: Callable[[object], None]) -> None:
        if any(path.glob("*")):
            faulty_calls.mark(sl.recover(path).total_sequences)

    def _follow(self, root: Path, disk: SimulatedDisk, work: Work, what: str, tally: Tally) -> None:
        """Does what follows a crash, and loses power at some of its calls."""
        try:
            calls = self._log(root, work)
        except sl.SparseLogitsError as error:
            tally.lose(f"seed {self._seed}, {what}: {type(error).__name__}: {error}")
        else:
            self._lose_power(disk, calls, what, tally, share=0.15)

    def _log(self, root: Path, work: Work, kill_at: int = -1) -> list[Call]:
        """The calls and marks of a forked process, which may be killed after one of them."""
        log = os.memfd_create("log")

        def logged(report: Callable[[object], None]) -> None:
            faulty_calls.watch(root, log)
            faulty_calls.arm(kill_at, Action.KILL_AFTER)
            work(root / CACHE, report)

        child = Child(logged)
        for kind, value in child.wait():
            if kind == "error" and isinstance(value, BaseException):
                raise value
        assert child.signal == (9 if kill_at >= 0 else None)
        calls = faulty_calls.read_log(os.pread(log, 1 << 26, 0))
        os.close(log)
        return calls

    def _lose_power(
        self, disk: SimulatedDisk, calls: list[Call], what: str, tally: Tally, share: float = 1.0
    ) -> list[_Tree]:
        """Tries what may be found after each of the calls, or a share of it; each tree once."""
        trees: list[_Tree] = []
        seen = set()
        for number, call in enumerate(calls):
            disk.replay(call)
            if call.kind in (Kind.CLOSE, Kind.MMAP):  # changes nothing
                continue
            for style, (data, names) in enumerate(FATES):
                if self._rng.random() > self._scale * share:
                    continue
                rng = np.random.default_rng([SEED, self._seed, number, style])
                tree = _Tree(disk.after_power_loss(data, names, rng), disk.mark)
                key = (tuple(sorted(tree.files.items(), key=str)), tree.committed)
                if key in seen:
                    continue
                seen.add(key)
                trees.append(tree)
                root = self._directory()
                make_tree(tree.files, root)
                where = (
                    f"{what}, after call {number} {call}, data {data.value}, names {names.value}"
                )
                self._judge(root, tree.committed, where, tally)
        return trees

    def _judge(self, root: Path, committed: int, where: str, tally: Tally) -> None:
        try:
            problem = in_child(lambda: recover_and_resume(self._workload, root / CACHE, committed))
        except (sl.SparseLogitsError, TrialDied) as error:
            problem = f"{type(error).__name__}: {error}"
        shutil.rmtree(root)
        if problem:
            tally.lose(f"seed {self._seed}, {where}: {problem}")
        else:
            tally.recovered += 1

    def _directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._scratch))


def _length(calls: list[Call]) -> int:
    """How many calls there are: marks do not count where one is chosen to fail."""
    return sum(call.kind is not Kind.MARK for call in calls)


Tail = Callable[[bytes, int, bytes, np.random.Generator], bytes]


def _cut(whole: bytes, synced: int, _other: bytes, rng: np.random.Generator) -> bytes:
    return whole[synced : int(rng.integers(synced, len(whole) + 1))]


def _garbage(whole: bytes, synced: int, _other: bytes, rng: np.random.Generator) -> bytes:
    kept = whole[synced : int(rng.integers(synced, len(whole) + 1))]
    return kept + rng.bytes(int(rng.integers(0, 6_000)))


def _zeros(whole: bytes, synced: int, _other: bytes, rng: np.random.Generator) -> bytes:
    kept = whole[synced : int(rng.integers(synced, len(whole) + 1))]
    return kept + bytes(int(rng.integers(0, 6_000)))


def _other_place(whole: bytes, synced: int, other: bytes, rng: np.random.Generator) -> bytes:
    start = 8 * int(rng.integers(0, len(other) // 8))
    return other[start:]


def _same_place(whole: bytes, synced: int, other: bytes, rng: np.random.Generator) -> bytes:
    return other[synced : int(rng.integers(synced, len(other) + 1))]


def _itself(whole: bytes, synced: int, _other: bytes, rng: np.random.Generator) -> bytes:
    start = 8 * int(rng.integers(0, synced // 8))
    return whole[start:synced]


_TAILS: dict[str, Tail] = {
    "cut anywhere": _cut,
    "random bytes": _garbage,
    "zeros": _zeros,
    "another shard's bytes of the same place": _same_place,
    "another shard's bytes": _other_place,
    "earlier bytes of the shard itself": _itself,
}


def _other_shard(workload: Workload, root: Path) -> bytes:
    """The largest shard of another cache of the same content."""
    write(workload, root / "other")
    data = max((path.read_bytes() for path in (root / "other").glob("*.slc")), key=len)
    shutil.rmtree(root)
    return data
