"""A whole training step from a compact cache, beside cross-entropy and a live teacher.

The student is a small Llama on the CPU. All forms train the same student in turns; see
steps/forms.py for what they do and steps/measure.py for how they are timed. Memory is the
high-water mark of a process that runs one form only. Takes about eight minutes on two cores.

    python benchmarks/bench_step.py [--rounds 30] [--batch-size 2] [--threads 2] [--json]
                                    [--markdown docs/results/step.md]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from steps.data import write_compact_cache
from steps.forms import AGAIN, MEASURED
from steps.measure import peak_mib, times
from steps.report import page, summary


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=2, help="sequences of 512 tokens")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", type=Path, help="write the page to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("rounds", "batch_size", "threads")}
    if arguments.child:
        print(json.dumps(child(*arguments.child, options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        write_compact_cache(cache)
        found = in_a_child("times", cache)
        memory = {form: in_a_child(form, cache) for form in MEASURED if form != AGAIN}
    if arguments.json:
        print(json.dumps({**summary(found), "times": found, "peak_mib": memory}, indent=1))
    else:
        print(page(found, memory, options))
    if arguments.markdown:
        arguments.markdown.write_text(page(found, memory, options))


def child(job: str, cache: str, options: dict[str, Any]) -> Any:
    """What one process measures: the times of all forms, or the memory of one."""
    if job == "times":
        return times(Path(cache), options)
    return peak_mib(Path(cache), options, job)


def in_a_child(job: str, cache: Path) -> Any:
    """Runs a job in a process of its own, in which idle threads wait without spinning."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--child", job, str(cache)],
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
