"""The loaders that bench_loader.py compares, one module each, imported only when it is measured."""

from __future__ import annotations

import importlib

from loaders.base import Loader

MODULES = {
    "memcpy": "loaders.memcpy",
    "memmap": "loaders.memmap",
    "memmap-packed": "loaders.memmap_packed",
    "sparselogits": "loaders.own",
    "mds": "loaders.mds",
    "litdata": "loaders.litdata_chunks",
    "arrayrecord": "loaders.arrayrecord",
    "parquet": "loaders.parquet",
    "datasets": "loaders.hf_datasets",
    "torch": "loaders.torch_shards",
}


def load(name: str) -> list[Loader]:
    """The rows of one kind.

    Raises:
        ImportError: A package is missing.
    """
    made: list[Loader] = importlib.import_module(MODULES[name]).LOADERS
    return made
