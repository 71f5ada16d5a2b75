"""Watch a real teacher become a cache, and a student learn from it."""

from __future__ import annotations

import argparse
from typing import Any

from sparselogits.cli.failures import require

_NEEDED = ("torch", "transformers", "safetensors", "gguf", "matplotlib")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "--output", metavar="DIR", default="demo-output", help="default: demo-output"
    )
    parser.add_argument(
        "--positions",
        type=int,
        default=4096,
        metavar="N",
        help="positions to train on, a multiple of 128; default: 4096",
    )
    parser.add_argument(
        "--steps", type=int, default=300, metavar="N", help="of each student; default: 300"
    )


def run(args: argparse.Namespace) -> Any:
    """Runs the demo.

    Raises:
        InvalidArgumentError: A package of the extra `demo` is missing, or an argument is wrong.
    """
    require("demo", *_NEEDED)
    from sparselogits.demo import run as run_demo

    return run_demo(args.output, positions=args.positions, steps=args.steps)


def show(report: dict[str, Any]) -> None:
    """Prints the tables."""
    from sparselogits.demo.report import report as tables

    print(tables(report))
