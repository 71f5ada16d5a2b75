"""Builds the library of faulty_calls.c, and speaks to it where it is preloaded."""

from __future__ import annotations

import ctypes
import enum
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path


class Kind(enum.IntEnum):
    OPEN, WRITE, SYNC, DATASYNC, TRUNCATE, RENAME, UNLINK, MKDIR, CLOSE, MMAP, ADVISE, MARK = range(
        12
    )


class Action(enum.IntEnum):
    PASS, FAIL, FAIL_AFTER, SHORT, KILL_BEFORE, KILL_HALF, KILL_AFTER = range(7)


@dataclass(frozen=True)
class Call:
    """One system call as it was made, or a mark of the program between two.

    Attributes:
        kind: Which call.
        flags: Of an open; the advice of an ADVISE.
        file: A number of its own for each open; 0 for calls on paths.
        error: The errno of a call that failed, by itself or by plan; else 0.
        offset: Of a write.
        length: Of a truncation; the value of a mark.
        path, second: Of an open, unlink, mkdir; both of a rename.
        data: What a write wrote.
    """

    kind: Kind
    flags: int
    file: int
    error: int
    offset: int
    length: int
    path: str
    second: str
    data: bytes

    def __str__(self) -> str:
        names = ", ".join(Path(path).name for path in (self.path, self.second) if path)
        return f"{self.kind.name.lower()}({names or f'file {self.file}'})"


_RECORD = struct.Struct("@IIiiIIIqq")  # as the compiler lays it out


def build(directory: Path) -> Path:
    """Compiles the library into a directory, with $CC or cc."""
    library = directory / "faulty_calls.so"
    source = Path(__file__).with_name("faulty_calls.c")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, *flags, "-o", str(library), str(source)], check=True)
    return library


def watch(directory: Path, log: int = -1) -> None:
    """From here on calls on files below `directory` are counted, and logged to descriptor `log`."""
    _library().faulty_calls_watch(os.fsencode(directory), log)


def arm(call: int, action: Action, error: int = 0, stays: bool = False) -> None:
    """The `call`-th watched call from here on fails; with `stays`, so do later ones of its kind."""
    _library().faulty_calls_arm(ctypes.c_long(call), int(action), error, int(stays))


def mark(value: int) -> None:
    """Writes a mark into the log."""
    _library().faulty_calls_mark(ctypes.c_long(value))


def read_log(data: bytes) -> list[Call]:
    """The calls of a log."""
    calls, at = [], 0
    while at < len(data):
        kind, flags, file, error, path, second, length, offset, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        parts = []
        for number in (path, second, length):
            parts.append(data[at : at + number])
            at += number
        names = [os.fsdecode(part) for part in parts[:2]]
        calls.append(Call(Kind(kind), flags, file, error, offset, size, *names, parts[2]))
    return calls


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    if not hasattr(library, "faulty_calls_watch"):
        raise RuntimeError("the library of faulty_calls.c is not preloaded")
    return library
