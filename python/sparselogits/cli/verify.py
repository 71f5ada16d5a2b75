"""Check every byte of a cache: checksums, records, index, manifest."""

from __future__ import annotations

import argparse
from typing import Any

from sparselogits.cli.output import Progress, jsonable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Verifies; an error names the file, the byte and the field of the first fault."""
    from sparselogits.reader import open as open_cache

    cache = open_cache(args.cache)
    with Progress("verify") as progress:
        details = jsonable(cache.verify(progress=progress))
    return {"ok": True, "path": cache.path, **details}
