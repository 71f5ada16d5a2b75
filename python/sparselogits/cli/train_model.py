"""Train a model of the compact codec on a cache, to give to many writers."""

from __future__ import annotations

import argparse
import os
from typing import Any

from sparselogits.errors import InvalidArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory, of any codec")
    parser.add_argument("out", metavar="OUT.slm", help="the model's file, which must not exist")
    parser.add_argument("--no-tokens", action="store_true", help="for caches that store no tokens")
    parser.add_argument(
        "--max-positions", type=int, metavar="N", help="to train on (default: 250,000)"
    )
    parser.add_argument("--classes", type=int, metavar="N", help="1 to 256; 1 is the smallest")


def run(args: argparse.Namespace) -> Any:
    """What `sparselogits.train_model` made."""
    from sparselogits.model_training import train_model
    from sparselogits.training_sample import TRAINING_POSITIONS

    if os.path.lexists(args.out):
        raise InvalidArgumentError(f"{args.out} exists: choose another name")
    model = train_model(
        args.cache,
        store_tokens=False if args.no_tokens else None,
        max_positions=TRAINING_POSITIONS if args.max_positions is None else args.max_positions,
        num_classes=args.classes,
    )
    model.save(args.out)
    return {
        "path": os.path.abspath(args.out),
        "digest": model.digest,
        "bytes": model.nbytes,
        "classes": model.num_classes,
        "vocab_size": model.vocab_size,
        "rounds": model.rounds,
        "codes_tokens": model.codes_tokens,
    }
