"""Run a Hugging Face causal LM over token windows and write a cache of draws."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sparselogits.cli.failures import require
from sparselogits.cli.metadata_option import add_metadata, parse_metadata
from sparselogits.cli.token_options import add_token_arguments, windows_from_arguments
from sparselogits.cli.worker_options import add_worker_arguments, capture_in_units, in_units
from sparselogits.config import DEFAULT_CODEC
from sparselogits.errors import CacheIOError, InvalidArgumentError

if TYPE_CHECKING:
    from sparselogits.reader import Cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments: those of `sparselogits.capture`, with its defaults."""
    parser.add_argument("model", metavar="MODEL", help="a model directory or hub name")
    parser.add_argument(
        "windows", metavar="WINDOWS", help="a .npy of (windows, length) ids, or a corpus"
    )
    parser.add_argument("out", metavar="OUT", help="the cache directory to write")
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
    teacher = parser.add_argument_group("teacher")
    teacher.add_argument(
        "--tokenizer", metavar="PATH", help="default: MODEL; it gives vocabulary and fingerprint"
    )
    teacher.add_argument("--no-tokenizer", action="store_true", help="record none")
    teacher.add_argument(
        "--vocab-size", type=int, help="default: the tokenizer's, else the model's"
    )
    teacher.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16")
    )
    teacher.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, …")
    work = parser.add_argument_group("work")
    work.add_argument("--batch-size", type=int, default=8, help="windows at once (default: 8)")
    work.add_argument("--chunk-rows", type=int, help="rows of the head at once")
    work.add_argument("--flush-seconds", type=float, default=60.0, help="commit this often")
    work.add_argument("--resume", action="store_true", help="go on with an unfinished cache at OUT")
    add_worker_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Captures.

    Raises:
        InvalidArgumentError: Torch or transformers is missing; an argument is wrong.
        CacheIOError: A file cannot be read or written.
    """
    metadata = parse_metadata(args.metadata)
    if args.no_tokenizer and args.tokenizer is not None:
        raise InvalidArgumentError("--tokenizer and --no-tokenizer exclude each other")
    by_many = in_units(args)
    require("capture", "torch", "transformers")
    options: dict[str, Any] = {
        "rounds": args.rounds,
        "sampler": args.sampler,
        "temperature": args.temperature,
        "proposal_temperature": args.proposal_temperature,
        "seed": args.seed,
        "tokenizer": _load_tokenizer(args),
        "metadata": metadata,
        "store_tokens": not args.no_store_tokens,
        "batch_size": args.batch_size,
        "chunk_rows": args.chunk_rows,
        "sequence_ids": None if args.sequence_ids is None else _sequence_ids(args.sequence_ids),
        "targets_mask": args.targets_mask,
        "vocab_size": args.vocab_size,
        "weight_dtype": args.weight_dtype,
        "codec": args.codec,
        "codec_model": args.codec_model,
        "flush_seconds": args.flush_seconds,
    }
    windows = windows_from_arguments(args, options["tokenizer"])
    if by_many:
        made = capture_in_units(args, windows, _load_model, options)
        return {} if made is None else _report(made)
    from sparselogits.capture.run import capture

    return _report(capture(_load_model(args), windows, args.out, resume=args.resume, **options))


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


def _load_tokenizer(args: argparse.Namespace) -> Any:
    """The tokenizer, or None."""
    from transformers import AutoTokenizer

    if args.no_tokenizer:
        return None
    return _loaded(args, lambda: AutoTokenizer.from_pretrained(args.tokenizer or args.model))


def _load_model(args: argparse.Namespace) -> Any:
    """The model in eval mode on its device."""
    from transformers import AutoModelForCausalLM

    def load() -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype)
        return model.eval().to(args.device)

    return _loaded(args, load)


def _loaded(args: argparse.Namespace, load: Callable[[], Any]) -> Any:
    try:
        with _bars_on_a_terminal_only():
            return load()
    except (ValueError, RuntimeError) as error:  # not a model; not a device
        raise InvalidArgumentError(f"cannot load the teacher {args.model}: {error}") from error
    except OSError as error:
        raise CacheIOError(f"cannot load the teacher {args.model}: {error}") from error


@contextmanager
def _bars_on_a_terminal_only() -> Iterator[None]:
    """Keeps transformers' progress bars out of logs."""
    from transformers.utils import logging

    bars: Any = logging  # it has no annotations
    silence = bars.is_progress_bar_enabled() and not sys.stderr.isatty()
    if silence:
        bars.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            bars.enable_progress_bar()


def _sequence_ids(path: str) -> list[int]:
    import numpy as np

    try:
        ids = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InvalidArgumentError(f"--sequence-ids {path}: {error}") from error
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InvalidArgumentError(f"--sequence-ids {path} must hold one 1-D array of integers")
    return [int(value) for value in ids]
