"""The same faults for sparselogits, MDS, litdata, ArrayRecord, Arrow IPC and Parquet.

Prints Markdown tables and writes a JSON report. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import adapters
import environment
import tables
from faults import EQUAL_SIZE_FAULTS, FAULTS
from reader_trials import run_reader_trials
from records import load_records
from writer_trials import run_writer_trials

_OURS = "sparselogits"
_REPORT = Path(__file__).resolve().parents[2] / "build" / "faults.json"
# They wait most: first, so that they do not run alone at the end.
_SLOWEST_FIRST = ("litdata", "mds")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--setup", action="store_true", help="first make .venv for the others")
    parser.add_argument("--python", type=Path, help="interpreter that has the others installed")
    parser.add_argument("--formats", nargs="+", choices=adapters.MODULES, metavar="FORMAT")
    parser.add_argument("--trials", type=int, default=200, help="of each fault of stored bytes")
    parser.add_argument("--writer-trials", type=int, default=20, help="of each fault of writers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=3, help="formats at a time; some mostly wait")
    parser.add_argument("--json", type=Path, default=_REPORT, metavar="FILE")
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)  # of one format's process
    args = parser.parse_args()
    if args.scratch is not None:
        (name,) = args.formats
        print(json.dumps(_run_format(name, args.scratch, args)))
        return
    if args.setup:
        environment.set_up()
    names = args.formats or list(adapters.MODULES)
    python = {name: _python(name, args.python) for name in names}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        _make_records(Path(scratch))
        order = sorted(names, key=lambda name: name not in _SLOWEST_FIRST)
        with ThreadPoolExecutor(args.jobs) as pool:
            runs = {
                name: pool.submit(_start_format, python[name], name, scratch, args)
                for name in order
            }
            rows = [row for name in names for row in runs[name].result()]
    seconds = time.monotonic() - started
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"seconds": seconds, "seed": args.seed, "rows": rows}))
    for table in (tables.stored_faults, tables.writing_faults, tables.settings):
        print(table(rows), end="\n\n")
    print(f"{seconds:.0f} s; report: {args.json}", file=sys.stderr)


def _python(name: str, chosen: Path | None) -> Path:
    if name == _OURS:
        return Path(sys.executable)
    python = chosen or environment.PYTHON
    if not python.exists():
        sys.exit(f"{python} does not exist: run with --setup, or with --formats {_OURS}")
    return python


def _make_records(scratch: Path) -> None:
    # Only here: the other formats' environment has no sparselogits.
    from make_records import make_records

    make_records(*_record_files(scratch))


def _record_files(scratch: Path) -> tuple[Path, Path]:
    return scratch / "draws.npz", scratch / "equal.npz"


def _start_format(
    python: Path, name: str, scratch: str, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Runs one format in a process of its own: libraries do not meet."""
    command = [python, __file__, "--formats", name, "--scratch", scratch]
    for option in ("trials", "writer_trials", "seed"):
        command += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _run_format(name: str, scratch: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    draws, equal = (load_records(file) for file in _record_files(scratch))
    rows = []
    for adapter in adapters.load(name):
        started = time.monotonic()
        row: dict[str, Any] = {
            "name": adapter.name,
            "package": adapter.package,
            "version": adapter.version(),
            "settings": adapter.settings,
            "repair": adapter.repair,
            "appending": adapter.appending,
            "stored": {},
            "writing": None,
        }
        for datasets, faults in ((draws, FAULTS), (equal, EQUAL_SIZE_FAULTS)):
            with tempfile.TemporaryDirectory(dir=scratch) as own:
                row["stored"] |= run_reader_trials(
                    adapter, Path(own), datasets, faults, args.trials, args.seed
                )
        if adapter.writes:
            with tempfile.TemporaryDirectory(dir=scratch) as own:
                row["writing"] = run_writer_trials(
                    adapter, Path(own), draws[0], args.writer_trials, args.seed
                )
        row["seconds"] = round(time.monotonic() - started)
        print(f"{adapter.name}: {row['seconds']} s", file=sys.stderr, flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
