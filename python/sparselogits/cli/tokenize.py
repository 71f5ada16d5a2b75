"""Turn text into token ids: a Megatron-LM pair, PREFIX.bin and PREFIX.idx."""

from __future__ import annotations

import argparse
import time
from typing import Any

from sparselogits.cli.failures import require
from sparselogits.cli.output import Progress
from sparselogits.cli.token_options import add_column, add_marks, mark_id
from sparselogits.errors import CacheIOError, InvalidArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="a .txt, .jsonl or .parquet file, or a folder of them; all of one kind",
    )
    parser.add_argument(
        "--tokenizer", metavar="T", required=True, help="a model directory or hub name"
    )
    parser.add_argument(
        "--out", metavar="PREFIX", required=True, help="writes PREFIX.bin and PREFIX.idx"
    )
    add_column(parser)
    add_marks(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Tokenises.

    Raises:
        InvalidArgumentError: transformers or pyarrow is missing; an argument is wrong.
        FormatError, CacheIOError: An input is damaged or cannot be read; PREFIX cannot be written.
    """
    require("tokens", "transformers")
    from sparselogits.fingerprint import fingerprint_tokenizer
    from sparselogits.tokens.megatron import MegatronTokens
    from sparselogits.tokens.opening import open_rows
    from sparselogits.tokens.tokenize import tokenize

    reader = open_rows(args.inputs, column=args.column)
    if not reader.holds_text:
        raise InvalidArgumentError(f"{reader.name}: holds token ids already, not text")
    tokenizer = _load(args.tokenizer)
    marks = {
        mark: None if value is None else mark_id(mark, value, tokenizer)
        for mark, value in (("bos", args.bos), ("eos", args.eos))
    }
    start = time.monotonic()
    with Progress("tokenize") as progress:
        tokenize(reader, tokenizer, args.out, progress=progress, **marks)
    seconds = time.monotonic() - start
    written = MegatronTokens(args.out)
    return {
        "path": args.out,
        "documents": written.num_documents,
        "empty_documents": int((written.lengths == 0).sum()),
        "tokens": written.num_tokens,
        "dtype": written.dtype.name,
        "bytes": written.nbytes,
        "digest": written.digest(),
        "tokenizer_fingerprint": fingerprint_tokenizer(tokenizer),
        "seconds": seconds,
        "tokens_per_second": written.num_tokens / max(seconds, 1e-9),
    }


def _load(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except ValueError as error:
        raise InvalidArgumentError(f"cannot load the tokenizer {name}: {error}") from error
    except OSError as error:
        raise CacheIOError(f"cannot load the tokenizer {name}: {error}") from error
