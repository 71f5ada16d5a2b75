"""Run as a program: merges or repacks, and kills itself at a given moment.

Usage: restart_script.py merge MOMENT OUT SOURCE ...
       restart_script.py repack MOMENT OUT SOURCE

MOMENT: step:N (when the progress is reported for the Nth time), manifest, publish, published, or
never. It says "ready" when it begins.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import sparselogits as sl
from sparselogits import repack_writer, staging
from sparselogits.manifest import Manifest
from sparselogits.staging import Staging


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: (die(), function(*arguments))


def main(verb: str, moment: str, out: str, *sources: str) -> None:
    steps = int(moment.removeprefix("step:")) if moment.startswith("step:") else -1
    if moment == "manifest":
        Manifest.write = before(Manifest.write)  # type: ignore[method-assign]
    elif moment == "publish":
        Staging.publish = before(Staging.publish)  # type: ignore[method-assign]
    elif moment == "published":
        staging.sync_directory = before(staging.sync_directory)  # it follows the rename

    def progress(*_: int) -> None:
        nonlocal steps
        steps -= 1
        if steps == 0:
            die()

    print("ready", flush=True)
    if verb == "merge":
        sl.merge(sources, out, progress=progress)
    else:
        repack_writer.BATCH_BYTES = 100_000
        repack_writer.COMMIT_BYTES = 3_000
        sl.repack(sources[0], out, shard_bytes=20_000, order="sequence_id", progress=progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
