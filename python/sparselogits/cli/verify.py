"""Check every byte of a cache: checksums, records, index, manifest."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sparselogits.cli.failures import BAD_DATA, OK
from sparselogits.cli.output import Progress, jsonable, print_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory")
    parser.add_argument(
        "--keep-going", action="store_true", help="list every fault, not the first one alone"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="shards checked at a time (default: one a core)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Verifies; a fault names the file, the byte, the field and the sequences concerned."""
    from sparselogits.verify import verify

    with Progress("verify") as progress:
        report = verify(
            args.cache,
            keep_going=args.keep_going,
            num_threads=args.threads,
            progress=progress,
            on_fault=lambda fault: print(f"sparselogits: {fault}", file=sys.stderr),
        )
    return {"ok": report.ok, "path": args.cache, **jsonable(report)}


def show(report: dict[str, Any]) -> None:
    """The report without the faults, which stderr has told of already."""
    faults = report["faults"]
    print_report({**report, "faults": len(faults)})


def status(report: dict[str, Any]) -> int:
    """The exit code."""
    return OK if report["ok"] else BAD_DATA
