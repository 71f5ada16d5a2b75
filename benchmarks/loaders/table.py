"""The rows as Markdown."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from loaders.measure import WORKERS

_PACKAGES = (
    "numpy",
    "torch",
    "mosaicml-streaming",
    "litdata",
    "array-record",
    "pyarrow",
    "datasets",
)
_BASELINE = "np.memmap"


def table(report: dict[str, Any]) -> str:
    """The whole page.

    Args:
        report: `rows`, `versions`, `machine`, and of the sample `name`, `positions`, `entries` of
            one position, `sequences`, `length`.
    """
    rows, sample = report["rows"], report["sample"]
    base = next((row for row in rows if row["name"] == _BASELINE), None)
    lines = [
        "# Loaders",
        "",
        f"`python benchmarks/bench_loader.py --markdown docs/results/loader.md`, "
        f"{report['machine']}; {report['versions']}.",
        "",
        f"{sample['sequences']:,} sequences of {sample['length']} positions with "
        f"{sample['entries']:.1f} entries each ({sample['name']}), in batches of 8, all in the "
        "page cache. Every loader ends with the same tensors: input_ids, labels, offsets, "
        "token_ids, weights; they are compared with what was stored before the clock starts. "
        "Others store the arrays of a sequence as bytes that NumPy reads in place: int32 tokens "
        "and ids, uint8 counts and entries a position. Median of repeats that take turns. Per "
        "core: millions of positions per second of CPU time, of all threads. x: as a multiple of "
        f"{_BASELINE}. Clock: per second, shuffled, in this process and with a DataLoader of "
        f"{WORKERS} processes.",
        "",
        "| loader | bytes a position | shuffled, per core | x | in order, per core | x | clock | "
        f"clock, {WORKERS} workers |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(_line(row, base) for row in rows),
        "",
        *_requirements(rows),
        "",
        *(_note(row) for row in rows if not row["missing"]),
    ]
    return "\n".join(lines) + "\n"


def versions() -> str:
    """Of what is installed."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """The processor's name and its number."""
    names = {
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    return f"{', '.join(sorted(names)) or platform.machine()}, {platform.system()}"


def _line(row: dict[str, Any], base: dict[str, Any] | None) -> str:
    if row["missing"]:
        return f"| {row['name']} | {row['missing']} | | | | | | |"
    cells = [row["name"], f"{row['bytes_per_position']:.1f}"]
    for what in ("random", "sequential"):
        cells += [_millions(row[what]), "" if base is None else f"{row[what] / base[what]:.2f}"]
    cells += [_millions(row["random_wall"]), _millions(row["workers_wall"])]
    return f"| {' | '.join(cells)} |"


def _millions(rate: float) -> str:
    return f"{rate / 1e6:.2f}" if rate else ""


def _requirements(rows: list[dict[str, Any]]) -> list[str]:
    """This library's own targets."""
    by_name = {row["name"]: row for row in rows}
    lines = []
    for codec in ("packed", "compact"):
        raw = by_name.get(f"Cache.read_sequences, {codec}")
        bare = by_name.get(f"sparselogits {codec}, bare")
        if raw is not None and bare is not None:
            ratio = bare["random"] / raw["random"]
            lines.append(
                f"- {codec}: {ratio:.2f} of the raw decode through the dataset (wanted: 0.70), "
                f"{_millions(bare['random'])} M positions/s/core (wanted of compact: 2.00)."
            )
    return lines


def _note(row: dict[str, Any]) -> str:
    shuffled = f" Shuffled: {row['shuffled']}." if row["shuffled"] else ""
    return f"- {row['name']}: {row['settings']}.{shuffled}"
