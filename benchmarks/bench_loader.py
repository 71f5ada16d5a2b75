"""This library's loader beside others that hold the same records and decode them, in one run.

    python benchmarks/bench_loader.py [--setup] [--markdown FILE] [--json]

Each loader ends with the same five tensors a batch. `--setup` first installs the others into a
virtual environment beside benchmarks/loaders/requirements.txt; without it the environment that runs
is used, and a loader that is not installed there has a row that says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import loaders
import numpy as np
from samples import LENGTH, load_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--setup", action="store_true", help="first make .venv for the others")
    parser.add_argument("--python", type=Path, help="interpreter that has the others installed")
    parser.add_argument("--loaders", nargs="+", choices=loaders.MODULES, metavar="LOADER")
    parser.add_argument("--sample", default="multinomial50-sharp", help="of shared/data")
    parser.add_argument("--copies", type=int, default=16, help="of the sample, in one dataset")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)  # of the inner process
    args = parser.parse_args()
    if args.scratch is not None:
        print(json.dumps(_measure(args)))
        return
    report = _measure_elsewhere(args)
    from loaders.table import table

    print(json.dumps(report, indent=2) if args.json else table(report))
    if args.markdown:
        args.markdown.write_text(table(report))


def _measure_elsewhere(args: argparse.Namespace) -> dict[str, Any]:
    """In a process of the interpreter that has the others."""
    from loaders import environment

    if args.setup:
        environment.set_up()
    python = args.python or environment.interpreter()
    with tempfile.TemporaryDirectory(prefix="loaders-") as scratch:
        options = [f"--{name}={getattr(args, name)}" for name in ("sample", "copies", "repeats")]
        if args.loaders:
            options += ["--loaders", *args.loaders]
        done = subprocess.run(
            [python, __file__, *options, "--scratch", scratch],
            env=environment.with_this_library(Path(scratch)),
            stdout=subprocess.PIPE,
        )
    if done.returncode != 0:
        sys.exit(f"the measurement ended with exit code {done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from loaders.measure import measure
    from loaders.table import machine, versions

    torch.set_num_threads(1)
    samples = load_samples()
    one = next((sample for sample in samples if sample.name == args.sample), samples[0])
    sample = one.select(np.tile(np.arange(len(one.tokens)), args.copies))
    rows = measure(sample, args.scratch, args.loaders or list(loaders.MODULES), args.repeats)
    return {
        "machine": machine(),
        "versions": versions(),
        "sample": {
            "name": sample.name,
            "sequences": len(sample.tokens),
            "length": LENGTH,
            "entries": sample.ids_per_position,
        },
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    main()
