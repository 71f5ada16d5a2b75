"""SIGKILL at random moments of merge and repack, which must then end as if undisturbed.

One trial: a process works, is killed after a random time, and is called again, which may be
killed too. It is recovered if at no time the sources changed or half a cache was to be seen, and
the call that was let alone gave what an undisturbed one gives.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from caches import random_sequence, write
from random_caches import Content, content, snapshot
from report import Row, Tally

import sparselogits as sl

TRIALS = 200
_SCRIPT = Path(__file__).resolve().parents[1] / "python" / "restart_script.py"
_MOST_KILLS = 3


def run(scale: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        a, b = path / "a", path / "b"
        write(a, [random_sequence(i, 100) for i in range(30, 40)], shard_bytes=1)
        write(b, [random_sequence(i, 100) for i in range(30)])
        number = max(2, round(TRIALS * scale))
        return [
            _Verb(path, "merge", [a, b]).run(number),
            _Verb(path, "repack", [b]).run(number),
        ]


class _Verb:
    """The trials of one of the two."""

    def __init__(self, path: Path, verb: str, sources: list[Path]) -> None:
        self._path = path
        self._verb = verb
        self._sources = sources
        self._before = [snapshot(source) for source in sources]
        self._tally = Tally(f"SIGKILL at a random moment of {verb}, up to {_MOST_KILLS} in a row")
        started = self._started(path / verb)
        begun = time.monotonic()
        if started.wait() != 0:
            raise RuntimeError(f"{verb} fails even when it is let alone")
        self._duration = time.monotonic() - begun
        self._expected = self._content(path / verb)

    def run(self, number: int) -> Row:
        for seed in range(number):
            wrong = self._trial(
                random.Random(f"{self._verb} {seed}"), self._path / f"{self._verb}.{seed}"
            )
            if wrong:
                self._tally.lose(f"trial {seed}: {wrong}")
            else:
                self._tally.recovered += 1
        return self._tally.row()

    def _trial(self, rng: random.Random, out: Path) -> str:
        """What went wrong, or nothing."""
        for _ in range(rng.randint(1, _MOST_KILLS)):
            process = self._started(out)
            time.sleep(rng.random() * self._duration)
            process.kill()
            process.wait()
            if [snapshot(source) for source in self._sources] != self._before:
                return "a source has changed"
            if out.exists():
                break  # the last kill came after the rename
        else:
            if self._started(out).wait() != 0:
                return "the call after the kills failed"
        return "" if self._content(out) == self._expected else "the content differs"

    def _content(self, out: Path) -> tuple[list[int], Content, bool]:
        cache = sl.open(out)
        cache.verify()
        return cache.sequence_ids.tolist(), content(cache), cache.complete

    def _started(self, out: Path) -> subprocess.Popen[str]:
        """A process that is about to begin."""
        process = subprocess.Popen(
            [sys.executable, _SCRIPT, self._verb, "never", out, *self._sources],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as output:
            output.readline()
        return process
