"""Run a Hugging Face causal LM over token windows and write a cache of draws."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sparselogits.cli import capture_check
from sparselogits.cli.failures import require
from sparselogits.cli.metadata_option import add_metadata, parse_metadata
from sparselogits.cli.sequence_ids_option import load_sequence_ids
from sparselogits.cli.teacher_option import add_teacher_arguments, load_model, load_tokenizer
from sparselogits.cli.token_options import add_token_arguments, windows_from_arguments
from sparselogits.cli.worker_options import add_worker_arguments, capture_in_units, in_units
from sparselogits.config import DEFAULT_CODEC
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from sparselogits.reader import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments: those of `sparselogits.capture`, with its defaults."""
    parser.add_argument("model", metavar="MODEL", help="a model directory or hub name")
    parser.add_argument(
        "windows", metavar="WINDOWS", nargs="?", help="a .npy of (windows, length) ids, or a corpus"
    )
    parser.add_argument("out", metavar="OUT", nargs="?", help="the cache directory to write")
    add_token_arguments(parser.add_argument_group("windows of a corpus (docs/tokens.md)"))
    draws = parser.add_argument_group("draws")
    draws.add_argument("--rounds", type=int, default=50, help="draws a position (default: 50)")
    draws.add_argument(
        "--sampler", default="multinomial", help="multinomial (default) or systematic"
    )
    draws.add_argument("--temperature", type=float, default=1.0)
    draws.add_argument(
        "--proposal-temperature", type=float, default=1.0, help="other than 1: importance weights"
    )
    draws.add_argument("--seed", type=int, default=0)
    draws.add_argument(
        "--offset",
        type=float,
        default=0.0,
        help="of systematic draws; captures at 0 and 0.5 add up to one of twice the rounds",
    )
    stored = parser.add_argument_group("what is stored")
    stored.add_argument("--no-store-tokens", action="store_true", help="leave the input ids out")
    stored.add_argument("--codec", default=DEFAULT_CODEC, help="packed or compact")
    stored.add_argument(
        "--codec-model", metavar="FILE.slm", help="of compact (default: train one on the way)"
    )
    stored.add_argument("--weight-dtype", default="float32", help="of importance weights")
    stored.add_argument("--targets-mask", metavar="MASK.npy", help="bool: positions to capture")
    stored.add_argument("--sequence-ids", metavar="IDS.npy", help="one id a window")
    add_metadata(stored)
    add_teacher_arguments(parser)
    work = parser.add_argument_group("work")
    work.add_argument("--batch-size", type=int, default=8, help="windows at once (default: 8)")
    work.add_argument("--chunk-rows", type=int, help="rows of the head at once")
    work.add_argument("--flush-seconds", type=float, default=60.0, help="commit this often")
    work.add_argument(
        "--no-overlap", action="store_true", help="sample and write while the teacher waits"
    )
    work.add_argument("--resume", action="store_true", help="go on with an unfinished cache at OUT")
    add_worker_arguments(parser)
    capture_check.add_check_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Captures, or with `--check` compares a finished cache with the teacher.

    Raises:
        InvalidArgumentError: Torch or transformers is missing; an argument is wrong.
        CacheIOError: A file cannot be read or written.
    """
    if args.check is not None:
        return capture_check.run_check(args)
    for name in ("windows", "out"):
        if getattr(args, name) is None:
            raise InvalidArgumentError(f"{name.upper()} is missing (only --check needs none)")
    by_many = in_units(args)
    require("capture", "torch", "transformers")
    tokenizer = load_tokenizer(args)
    windows = windows_from_arguments(args, tokenizer)
    options: dict[str, Any] = {
        "rounds": args.rounds,
        "sampler": args.sampler,
        "temperature": args.temperature,
        "proposal_temperature": args.proposal_temperature,
        "seed": args.seed,
        "offset": args.offset,
        "tokenizer": tokenizer,
        "metadata": parse_metadata(args.metadata),
        "store_tokens": not args.no_store_tokens,
        "batch_size": args.batch_size,
        "chunk_rows": args.chunk_rows,
        "sequence_ids": load_sequence_ids(args.sequence_ids),
        "targets_mask": args.targets_mask,
        "vocab_size": args.vocab_size,
        "weight_dtype": args.weight_dtype,
        "codec": args.codec,
        "codec_model": args.codec_model,
        "flush_seconds": args.flush_seconds,
        "overlap": not args.no_overlap,
    }
    if by_many:
        made = capture_in_units(args, windows, load_model, options)
        return {} if made is None else _report(made)
    from sparselogits.capture.run import capture

    return _report(
        capture(load_model(args), windows, args.out, progress=True, resume=args.resume, **options)
    )


def _report(cache: Cache) -> dict[str, Any]:
    return {
        "path": cache.path,
        "sequences": len(cache),
        "positions": cache.num_positions,
        "bytes": cache.nbytes,
        "bytes_per_position": cache.nbytes / max(1, cache.num_positions),
        "config": cache.config.to_dict(),
        "metadata": cache.metadata,
    }


def status(report: dict[str, Any]) -> int:
    """The exit code: bad data where a checked cache does not fit its teacher."""
    return capture_check.status(report)
