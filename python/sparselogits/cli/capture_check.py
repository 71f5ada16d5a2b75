"""`capture --check`: compare a finished cache with its teacher."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from sparselogits.cli.failures import BAD_DATA, OK, require
from sparselogits.cli.sequence_ids_option import load_sequence_ids
from sparselogits.cli.teacher_option import load_teacher
from sparselogits.cli.token_options import refuse_token_arguments, windows_from_arguments
from sparselogits.errors import InvalidArgumentError


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares `--check` and what goes with it."""
    check = parser.add_argument_group("check instead of capture")
    check.add_argument(
        "--check",
        metavar="CACHE",
        help="run MODEL again on a part of a finished cache and compare; WINDOWS is needed only "
        "where the cache stores no tokens, or windows held several documents",
    )
    check.add_argument(
        "--fraction", type=float, default=0.02, help="share of the sequences (default: 0.02)"
    )
    check.add_argument("--check-seed", type=int, default=0, help="chooses the sequences")


def run_check(args: argparse.Namespace) -> dict[str, Any]:
    """The report of `sparselogits.check_capture`, with the verdict first.

    Raises:
        InvalidArgumentError: There is an OUT, or another argument is wrong.
        FormatError, CacheIOError: The cache or a file cannot be read.
    """
    if args.out is not None:
        raise InvalidArgumentError(f"--check writes nothing: there is no place for {args.out}")
    require("capture", "torch", "transformers")
    from sparselogits.capture.check import check_capture
    from sparselogits.reader import open as open_cache

    cache = open_cache(args.check)
    if args.windows is None:
        refuse_token_arguments(args, "there is no WINDOWS to cut")
    model, tokenizer = load_teacher(args)
    report = check_capture(
        model,
        cache,
        None if args.windows is None else windows_from_arguments(args, tokenizer),
        fraction=args.fraction,
        seed=args.check_seed,
        tokenizer=tokenizer,
        sequence_ids=load_sequence_ids(args.sequence_ids),
        batch_size=args.batch_size,
        chunk_rows=args.chunk_rows,
    )
    return dataclasses.asdict(report)


def status(report: dict[str, Any]) -> int:
    """The exit code of either report of `capture`."""
    return BAD_DATA if report.get("verdict") == "mismatch" else OK
