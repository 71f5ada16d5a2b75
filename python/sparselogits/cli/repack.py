"""Write a cache anew, losslessly: another codec, order, selection, shard size; tokens or not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sparselogits.cli.metadata_option import add_metadata, parse_metadata
from sparselogits.cli.output import Progress
from sparselogits.errors import CacheIOError, InvalidArgumentError, SequenceNotFoundError

_LONGEST_ID = 20  # digits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory")
    parser.add_argument("out", metavar="OUT", help="the new cache directory")
    parser.add_argument("--codec", metavar="C", help="of OUT (default: that of CACHE)")
    parser.add_argument(
        "--model",
        metavar="FILE.slm",
        help="code compact with this one (default: train one on CACHE)",
    )
    tokens = parser.add_mutually_exclusive_group()
    tokens.add_argument("--drop-tokens", action="store_true", help="do not store the tokens")
    tokens.add_argument(
        "--add-tokens",
        metavar="TOKENS.npy",
        help="store these, row i for the i-th sequence of CACHE, which stores none",
    )
    parser.add_argument("--order", choices=["sequence_id"], help="ascending (default: as it is)")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--only-ids", metavar="FILE", help="take these sequences, in this order: one id a line"
    )
    chosen.add_argument("--exclude-ids", metavar="FILE", help="leave these out: one id a line")
    parser.add_argument("--shard-bytes", type=int, default=1 << 30, help="default: 2^30")
    add_metadata(parser, "a fact to add or replace; may be repeated")
    parser.add_argument(
        "--restart", action="store_true", help="begin anew what was interrupted, if anything"
    )


def run(args: argparse.Namespace) -> Any:
    """The report of `sparselogits.repack`."""
    from sparselogits.repack import repack

    sequence_ids = None
    if args.only_ids is not None:
        sequence_ids = _ids(args.only_ids)
    elif args.exclude_ids is not None:
        sequence_ids = _all_but(args.cache, _ids(args.exclude_ids))
    with Progress("repack") as progress:
        return repack(
            args.cache,
            args.out,
            codec=args.codec,
            model=args.model,
            store_tokens=False if args.drop_tokens else True if args.add_tokens else None,
            input_ids=None if args.add_tokens is None else _tokens(args.add_tokens),
            order=args.order,
            sequence_ids=sequence_ids,
            shard_bytes=args.shard_bytes,
            metadata=parse_metadata(args.metadata),
            progress=progress,
            restart=args.restart,
        )


def _ids(path: str) -> list[int]:
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise CacheIOError(error.errno, f"cannot read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}: must be one id a line: {error}") from error
    ids = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text and not (text.isdigit() and len(text) <= _LONGEST_ID):
            raise InvalidArgumentError(
                f"{path}, line {number}: must be an id from 0 to 2^64 - 1, got {text[:80]!r}"
            )
        if text:
            ids.append(int(text))
    return ids


def _all_but(cache: str, excluded: list[int]) -> Any:
    """(n,) ids of the other sequences, in the order of the cache."""
    import numpy as np

    from sparselogits.arrays import unsigned_array
    from sparselogits.reader import open as open_cache

    ids = open_cache(cache).sequence_ids
    unwanted = unsigned_array("--exclude-ids", excluded)
    missing = unwanted[~np.isin(unwanted, ids)]
    if len(missing):
        raise SequenceNotFoundError(f"{cache} has no sequence_id {missing[0]}")
    return ids[~np.isin(ids, unwanted)]


def _tokens(path: str) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise CacheIOError(error.errno, f"cannot read: {error.strerror}", path) from error
    except (ValueError, EOFError) as error:
        raise InvalidArgumentError(f"--add-tokens {path}: {error}") from error
