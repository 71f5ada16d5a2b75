"""Run as a program by test_concurrency.py: processes that fork with a writer open.

Usage: fork_script.py PATH one      a child tries to write with its parent's writer, then ends
       fork_script.py PATH busy     children while another thread appends
       fork_script.py PATH orphan   a child lives on after its parent was killed; prints its pid
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time

from caches import CONFIG, random_sequence

import sparselogits as sl

SEQUENCES = [random_sequence(i) for i in range(150)]


def refused(writer: sl.CacheWriter) -> None:
    """All that a child may see of its parent's writer."""
    for call in (lambda: SEQUENCES[-1].append_to(writer), writer.flush, writer.__enter__):
        message = ""
        try:
            call()
        except sl.InvalidArgumentError as error:
            message = str(error)
        assert "belongs to the parent process" in message, message
    writer.close()


def one(path: str) -> None:
    with sl.CacheWriter(path, CONFIG) as writer:
        SEQUENCES[0].append_to(writer)
        child = os.fork()
        if child == 0:
            refused(writer)
            del writer
            gc.collect()
            sys.exit(0)  # through `with`, and through all that an interpreter does at its end
        print("child", os.waitpid(child, 0)[1])
        SEQUENCES[1].append_to(writer)


def busy(path: str) -> None:
    with sl.CacheWriter(path, CONFIG, shard_bytes=20_000) as writer:
        done = threading.Event()

        def append() -> None:
            for sequence in SEQUENCES:
                sequence.append_to(writer)
                writer.flush()
            done.set()

        thread = threading.Thread(target=append)
        thread.start()
        children = failed = 0
        while not done.is_set():
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    refused(writer)
                except BaseException as error:
                    print(error, file=sys.stderr, flush=True)
                    os._exit(1)
                os._exit(0)
            children += 1
            failed += os.waitpid(child, 0)[1] != 0
        thread.join()
    print("children", children > 3, "failed", failed)


def orphan(path: str) -> None:
    writer = sl.CacheWriter(path, CONFIG)
    SEQUENCES[0].append_to(writer)
    writer.flush()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b"x")
        sys.stdout.close()  # so that nobody waits for the child's output
        os.close(1)
        os.close(2)
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    {"one": one, "busy": busy, "orphan": orphan}[sys.argv[2]](sys.argv[1])
