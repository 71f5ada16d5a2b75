"""Join the caches of parallel writers, or add up draws of the same positions."""

from __future__ import annotations

import argparse
from typing import Any

from sparselogits.cli.metadata_option import add_metadata, parse_metadata
from sparselogits.cli.output import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("caches", metavar="CACHE", nargs="+", help="the caches to join")
    parser.add_argument("out", metavar="OUT", help="the new cache directory")
    parser.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="take recovered caches too; OUT is incomplete then",
    )
    parser.add_argument(
        "--rounds",
        choices=["add"],
        help="the caches hold draws of the same sequences, which are added up: multinomial ones of "
        "different seeds, systematic ones of one seed with offsets m/M",
    )
    add_metadata(parser, "a fact to add, or on which the caches differ; may be repeated")


def run(args: argparse.Namespace) -> Any:
    """The report of `sparselogits.merge`."""
    from sparselogits.merge import merge

    with Progress("merge") as progress:
        return merge(
            args.caches,
            args.out,
            metadata=parse_metadata(args.metadata),
            allow_incomplete=args.allow_incomplete,
            rounds=args.rounds,
            progress=progress,
        )
