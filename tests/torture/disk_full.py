"""A full disk, at each size in steps of one page: while writing, closing, resuming, recovering.

A small tmpfs is mounted in a mount namespace of the run's own and filled but for some pages; then
the fault, then space is freed, then recovery and resumption must end identical. Where mounting is
not allowed RLIMIT_FSIZE stands in: it limits each file and says EFBIG.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from isolated import Child, TrialDied, in_child, rows_of_fresh_interpreter
from report import Row, Tally
from workload import Workload, make_workload, recover_and_resume, write

import sparselogits as sl

TEST_SCALE = 0.05
SEED = 40_240_601
WORKLOAD_SEEDS = tuple(range(3, 13))  # small and large shards, of counts and of weights
SEQUENCES = 150
PAGE = 4096
DISK_PAGES = 256

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


def run(scale: float) -> list[Row]:
    return rows_of_fresh_interpreter("disk_full", scale)


@dataclass(frozen=True)
class Disk:
    """A directory with a limit on the bytes that it takes.

    Attributes:
        path: Where it is.
        error: The errno of a write beyond the limit.
        note: How the limit is set.
    """

    path: Path
    error: int
    note: str

    def limit(self, pages: int) -> None:
        """Leaves room for so many pages from here on; in a child of its own."""
        if self.error == errno.EFBIG:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (pages * PAGE, pages * PAGE))
            return
        space = os.statvfs(self.path)
        filler = (space.f_bavail - pages) * space.f_frsize
        with (self.path / "filler").open("wb") as file:
            if filler > 0:
                os.posix_fallocate(file.fileno(), 0, filler)

    def free(self) -> None:
        (self.path / "filler").unlink(missing_ok=True)

    def clear(self) -> None:
        for path in self.path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def trials(scale: float, scratch: Path) -> list[Row]:
    disk = _mount(scratch)
    rows = []
    for name, prepare, work in (
        ("full while writing", _nothing, _write),
        ("full before close", _nothing, _close),
        ("full before resuming", _killed, _write),
        ("full before recovering", _killed, _recover),
    ):
        tally = Tally(f"disk {name}", disk.note)
        rng = np.random.default_rng(SEED)
        for seed in WORKLOAD_SEEDS[: max(2, round(len(WORKLOAD_SEEDS) * scale))]:
            workload = make_workload(seed, SEQUENCES)
            enough = False
            pages = 0
            while not enough:
                enough = _try(workload, disk, prepare, work, pages, f"seed {seed}", tally)
                pages += 1 if scale >= 1 else int(rng.integers(1, 2 / scale))
        rows.append(tally.row())
    return rows


Report = Callable[[object], None]
Limit = Callable[[], None]


def _nothing(_workload: Workload, _path: Path) -> int:
    return 0


def _killed(workload: Workload, path: Path) -> int:
    """What a writer left that was killed in its second half; returns what was committed."""
    child: Child | None = None

    def work(report: Report) -> None:
        def committed(number: int) -> None:
            report(number)
            if number > workload.num_sequences // 2:
                os.kill(os.getpid(), signal.SIGKILL)

        write(workload, path, committed=committed)

    child = Child(work)
    return max(int(value) for _, value in child.wait())  # type: ignore[call-overload]


def _write(workload: Workload, path: Path, limit: Limit, report: Report) -> None:
    limit()
    write(workload, path, resume=True, committed=report)


def _close(workload: Workload, path: Path, limit: Limit, report: Report) -> None:
    write(workload, path, committed=report, closing=limit)


def _recover(_workload: Workload, path: Path, limit: Limit, _report: Report) -> None:
    limit()
    sl.recover(path)


def _try(
    workload: Workload,
    disk: Disk,
    prepare: Callable[[Workload, Path], int],
    work: Callable[[Workload, Path, Limit, Report], None],
    pages: int,
    where: str,
    tally: Tally,
) -> bool:
    """One trial with room for so many pages; whether that was enough."""
    path = disk.path / "cache"
    committed = prepare(workload, path)
    child = Child(lambda report: work(workload, path, lambda: disk.limit(pages), report))
    messages = child.wait()
    errors = [value for kind, value in messages if kind == "error"]
    committed = max([committed, *(v for k, v in messages if k == "value" and isinstance(v, int))])
    problem = ""
    if child.hung or child.signal is not None:
        problem = "hung" if child.hung else f"died of signal {child.signal}"
    elif errors:
        problem = _misbehaviour(errors[0], path, disk.error)
    disk.free()
    try:
        problem = problem or in_child(lambda: recover_and_resume(workload, path, committed))
    except (sl.SparseLogitsError, TrialDied) as error:
        problem = f"{type(error).__name__}: {error}"
    disk.clear()
    if problem:
        tally.lose(f"{where}, room for {pages} pages: {problem}")
    elif errors:
        tally.recovered += 1
    else:
        tally.harmless += 1
    return (not errors and not problem) or pages > DISK_PAGES


def _misbehaviour(error: object, path: Path, expected: int) -> str:
    """How a writer took the full disk, where it took it wrongly."""
    if not isinstance(error, sl.CacheIOError):
        return f"not a CacheIOError: {error!r}"
    if error.errno != expected or not str(error.filename).startswith(str(path)):
        return f"the error does not name errno and file: {error!r}"
    temporary = [file.name for file in path.glob(".*")]
    return f"temporary files were left: {temporary}" if temporary else ""


def _mount(scratch: Path) -> Disk:
    """A tmpfs of DISK_PAGES pages that vanishes with this process, or what stands in for it."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    mounted = libc.unshare(_CLONE_NEWNS) == 0
    if not mounted and libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        mounted = True
    options = f"size={DISK_PAGES * PAGE}".encode()
    mounted = (
        mounted
        and libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
        and libc.mount(b"tmpfs", os.fsencode(scratch), b"tmpfs", 0, options) == 0
    )
    if mounted:
        return Disk(scratch, errno.ENOSPC, f"tmpfs, {PAGE // 1024} KiB steps")
    why = os.strerror(ctypes.get_errno())
    return Disk(scratch, errno.EFBIG, f"RLIMIT_FSIZE, EFBIG: no tmpfs could be mounted ({why})")
