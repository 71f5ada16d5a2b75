"""Show the stored distributions of one sequence, with text where a tokenizer is given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparselogits.cli.failures import require
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from sparselogits.reader import Cache
    from sparselogits.sparse import SparseLogits

_DEFAULT_LIMIT = 16

Decode = Callable[[int], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("cache", metavar="CACHE", help="a cache directory")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--sequence", type=int, metavar="INDEX", help="which sequence (default: 0)")
    which.add_argument("--id", type=int, metavar="SEQUENCE_ID", help="the same, by sequence_id")
    parser.add_argument("--start", type=int, default=0, help="first position (default: 0)")
    parser.add_argument("--stop", type=int, help="position after the last (default: to the end)")
    parser.add_argument(
        "--limit",
        type=int,
        help=f"at most so many positions (default: {_DEFAULT_LIMIT}, without --stop)",
    )
    parser.add_argument(
        "--tokenizer", metavar="PATH", help="a local directory with the teacher's tokenizer"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The positions asked for, entries by ascending token id.

    Raises:
        InvalidArgumentError: A range outside the sequence.
        SequenceNotFoundError: No such sequence.
        FingerprintMismatchError: The tokenizer is not the one that the cache names.
    """
    from sparselogits.reader import open as open_cache

    cache = open_cache(args.cache)
    index = args.sequence or 0 if args.id is None else cache.index_of(args.id)
    whole = cache.length_of(index)
    start, stop = _range(args, whole)
    # One more position than shown: its input token is the one that followed the last.
    rows = cache.read(index, start, min(stop + 1, whole))
    decode = None if args.tokenizer is None else _decoder(args.tokenizer, cache)
    return {
        "path": cache.path,
        "sequence_index": index,
        "sequence_id": rows.sequence_id,
        "length": whole,
        "start": start,
        "stop": stop,
        "rounds": cache.config.rounds,
        "positions": [_position(rows, t, start, decode) for t in range(stop - start)],
    }


def show(report: dict[str, Any]) -> None:
    """One line a position, the heaviest entry first; `*` marks the token that followed."""
    end = report["stop"]
    print(
        f"sequence {report['sequence_index']} (id {report['sequence_id']}): positions "
        f"{report['start']} to {end - 1} of {report['length']}, {report['rounds']} rounds"
        if end > report["start"]
        else f"sequence {report['sequence_index']} (id {report['sequence_id']}): no positions"
    )
    for row in report["positions"]:
        token = "" if row["input_id"] is None else _token(row["input_id"], row.get("input_text"))
        entries = sorted(row["entries"], key=lambda entry: -entry["weight"])
        drawn = " ".join(_entry(entry, row["next_input_id"]) for entry in entries)
        print(f"{row['position']:>6}  {token:<16}  {drawn or '(empty)'}".rstrip())


def _range(args: argparse.Namespace, length: int) -> tuple[int, int]:
    start, stop, limit = args.start, args.stop, args.limit
    if limit is None:
        limit = _DEFAULT_LIMIT if stop is None else length
    if stop is None:
        stop = length
    if limit < 0:
        raise InvalidArgumentError(f"--limit must be at least 0, got {limit}")
    if not 0 <= start <= stop <= length:
        raise InvalidArgumentError(
            f"--start {start} and --stop {stop} are no range in the sequence's {length} positions"
        )
    return start, min(stop, start + limit)


def _decoder(path: str, cache: Cache) -> Decode:
    require("capture", "transformers")
    from transformers import AutoTokenizer

    from sparselogits.tokenizer_check import check_tokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except ValueError as error:
        raise InvalidArgumentError(f"--tokenizer {path}: {error}") from error
    if cache.config.tokenizer_fingerprint is not None:
        check_tokenizer(cache, tokenizer)

    def decode(token_id: int) -> str:
        return str(tokenizer.decode([token_id]))

    return decode


def _position(rows: SparseLogits, t: int, start: int, decode: Decode | None) -> dict[str, Any]:
    inputs = rows.input_ids
    low, high = int(rows.offsets[t]), int(rows.offsets[t + 1])
    entries = []
    for k in range(low, high):
        entry: dict[str, Any] = {
            "token_id": int(rows.token_ids[k]),
            "count": None if rows.counts is None else int(rows.counts[k]),
            "weight": float(rows.weights[k]),
        }
        if decode is not None:
            entry["text"] = decode(entry["token_id"])
        entries.append(entry)
    row: dict[str, Any] = {
        "position": start + t,
        "input_id": None if inputs is None else int(inputs[t]),
        "next_input_id": None if inputs is None or t + 1 >= len(inputs) else int(inputs[t + 1]),
        "entries": entries,
    }
    if decode is not None and row["input_id"] is not None:
        row["input_text"] = decode(row["input_id"])
    return row


def _token(token_id: int, text: str | None) -> str:
    return str(token_id) if text is None else f"{text!r}[{token_id}]"


def _entry(entry: dict[str, Any], followed_by: int | None) -> str:
    amount = f"×{entry['count']}" if entry["count"] is not None else f"={entry['weight']:.4g}"
    mark = "*" if entry["token_id"] == followed_by else ""
    return f"{_token(entry['token_id'], entry.get('text'))}{amount}{mark}"
