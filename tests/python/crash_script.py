"""Run as a program by test_crash.py: writes sequences until something ends it.

Usage: crash_script.py PATH kill NUMBER_COMMITTED NUMBER_LOST
       crash_script.py PATH full LIMIT_BYTES
"""

from __future__ import annotations

import os
import resource
import signal
import sys

from caches import CONFIG, random_sequence

import sparselogits as sl


def kill(path: str, committed: int, lost: int) -> None:
    writer = sl.CacheWriter(path, CONFIG, {"teacher": "test"})
    for i in range(committed):
        random_sequence(i, 100).append_to(writer)
    writer.flush()
    for i in range(committed, committed + lost):
        random_sequence(i, 100).append_to(writer)
    os.kill(os.getpid(), signal.SIGKILL)


def full(path: str, limit: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with sl.CacheWriter(path, CONFIG, {"teacher": "test"}) as writer:
        for i in range(10_000):
            try:
                random_sequence(i, 100).append_to(writer)
                writer.flush()
            except sl.CacheIOError as error:
                print("failed", error)
                try:
                    random_sequence(i + 1, 100).append_to(writer)
                except sl.CacheIOError as again:
                    print("refused", again)
                raise
            print("durable", i, flush=True)


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[3:]]
    (kill if sys.argv[2] == "kill" else full)(sys.argv[1], *arguments)
