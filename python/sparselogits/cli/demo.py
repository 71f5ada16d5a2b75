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


def run(args: argparse.Namespace) -> Any:
    """Runs the demo.

    Raises:
        InvalidArgumentError: A package of the extra `demo` is missing.
    """
    require("demo", *_NEEDED)
    from sparselogits.demo import run as run_demo

    return run_demo(args.output)
