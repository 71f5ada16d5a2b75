"""The writers of benchmarks/faults/adapters, with files of a size that suits their readers."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from samples import Sample

from loaders.raw_records import raw_records

FAULTS = Path(__file__).resolve().parents[1] / "faults"
_RECORDS_OF_A_FILE = 256
_RECORDS_OF_A_GROUP = 64


def write_with(module: str, path: Path, sample: Sample) -> None:
    """Writes the raw records with the first adapter of a module, in a process of its own."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_write, args=(module, path, sample))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{module} could not write {path}")


def _write(module: str, path: Path, sample: Sample) -> None:
    if str(FAULTS) not in sys.path:
        sys.path.append(str(FAULTS))
    records: Any = importlib.import_module("records")
    records.FILE_RECORDS = _RECORDS_OF_A_FILE  # before an adapter takes it over
    records.BATCH = _RECORDS_OF_A_GROUP
    adapter = importlib.import_module(f"adapters.{module}").ADAPTERS[0]
    adapter.write(path, records.Source(list(raw_records(sample))))
