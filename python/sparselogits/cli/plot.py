"""Draw the reliability diagrams of saved calibration results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sparselogits.cli.failures import require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "results",
        metavar="RESULT",
        nargs="+",
        help="a JSON file that `Reliability.save` wrote; several are drawn side by side",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="the picture; its suffix says the format; default: the first RESULT with .png",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Draws, and repeats the figures.

    Raises:
        InvalidArgumentError: matplotlib is missing, or writes no such format.
    """
    require("plot", "matplotlib")
    from sparselogits.reliability import Reliability
    from sparselogits.reliability_plot import save_diagrams

    output = Path(args.output) if args.output else Path(args.results[0]).with_suffix(".png")
    results = [(path, Reliability.load(path)) for path in args.results]
    save_diagrams([(Path(path).stem, reliability) for path, reliability in results], output)
    return {
        "picture": str(output),
        "results": [{"path": path, **reliability.summary()} for path, reliability in results],
    }
