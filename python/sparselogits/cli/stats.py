"""Show statistics of the stored samples, and bytes a position beside the paper's layout."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory")


def run(args: argparse.Namespace) -> Any:
    """The report of `sparselogits.inspect.stats_cache`."""
    from sparselogits.inspect import stats_cache

    return stats_cache(args.cache)
