"""Show what a cache is and where each of its bytes goes."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory")


def run(args: argparse.Namespace) -> Any:
    """The report of `sparselogits.inspect.inspect_cache`."""
    from sparselogits.inspect import inspect_cache

    return inspect_cache(args.cache)
