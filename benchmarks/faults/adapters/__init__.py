"""The formats, one module each; a module is imported only when its rows are wanted."""

from __future__ import annotations

import importlib

from adapters.base import Adapter

MODULES = {
    "sparselogits": "adapters.sparselogits_cache",
    "mds": "adapters.mds",
    "litdata": "adapters.litdata_chunks",
    "arrayrecord": "adapters.arrayrecord",
    "arrow": "adapters.arrow_ipc",
    "parquet": "adapters.parquet",
}


def load(name: str) -> list[Adapter]:
    """The rows of one format."""
    adapters: list[Adapter] = importlib.import_module(MODULES[name]).ADAPTERS
    return adapters
