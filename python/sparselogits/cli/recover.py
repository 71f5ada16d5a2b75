"""Make a readable cache of what a dead writer had committed."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory with .partial shards")


def run(args: argparse.Namespace) -> Any:
    """The report of `sparselogits.recover`."""
    from sparselogits.recover import recover

    return recover(args.cache)
