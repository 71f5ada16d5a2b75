"""The teacher of `capture`: which model and tokenizer, in which precision, on which device."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sparselogits.errors import CacheIOError, InvalidArgumentError


def add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options that `load_teacher` reads, beside the positional `model`."""
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
    teacher.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps, …")


def load_teacher(args: argparse.Namespace) -> tuple[Any, Any]:
    """The model in eval mode on its device, and the tokenizer or None.

    Raises:
        InvalidArgumentError: Options exclude each other; it is no model, or no such device.
        CacheIOError: It cannot be read.
    """
    tokenizer = load_tokenizer(args)
    return load_model(args), tokenizer


def load_tokenizer(args: argparse.Namespace) -> Any:
    """The tokenizer, or None with `--no-tokenizer`; raises as `load_teacher`."""
    if args.no_tokenizer and args.tokenizer is not None:
        raise InvalidArgumentError("--tokenizer and --no-tokenizer exclude each other")
    if args.no_tokenizer:
        return None
    from transformers import AutoTokenizer

    return _loaded(args, lambda: AutoTokenizer.from_pretrained(args.tokenizer or args.model))


def load_model(args: argparse.Namespace) -> Any:
    """The model in eval mode on its device; raises as `load_teacher`."""
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
