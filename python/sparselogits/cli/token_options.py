"""The options that make windows of a corpus, for `capture`, and what `tokenize` shares of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from sparselogits.capture.window_set import WindowSet

# Option → the name of its argument in `pack` or `open_tokens`.
_SOURCE_OPTIONS = {
    "--column": "column",
    "--token-dtype": "token_dtype",
    "--document-end": "document_end",
}
_PACK_OPTIONS = {
    "--packing": "packing",
    "--length": "length",
    "--bos": "bos",
    "--eos": "eos",
    "--bos-at": "bos_at",
    "--keep-short": "keep_short",
    "--long-documents": "long_documents",
    "--first-sequence-id": "first_sequence_id",
}


def add_token_arguments(group: argparse._ActionsContainer) -> None:
    """Declares the options. Left out is None: what is given and has no effect is an error."""
    group.add_argument("--length", type=int, metavar="S", help="tokens of a window")
    group.add_argument(
        "--packing",
        help="concat (default): documents end to end, cut every S tokens; concat-documents: the "
        "same, without attention across documents; documents: one a window",
    )
    add_column(group)
    group.add_argument(
        "--token-dtype", metavar="D", help="uint16 or uint32: WINDOWS is a headerless file of these"
    )
    group.add_argument(
        "--document-end", type=int, metavar="ID", help="the id that ends documents of a flat file"
    )
    add_marks(group)
    group.add_argument(
        "--bos-at", metavar="PLACE", help="document (default) or window: what --bos begins"
    )
    group.add_argument(
        "--keep-short",
        action="store_true",
        default=None,
        help="keep the last window of concat and concat-documents (default: whole ones only)",
    )
    group.add_argument(
        "--long-documents", metavar="HOW", help="of packing documents: split (default) or truncate"
    )
    group.add_argument(
        "--first-sequence-id", type=int, metavar="N", help="of window 0 (default: 0)"
    )


def add_column(group: argparse._ActionsContainer) -> None:
    """Declares `--column`."""
    group.add_argument(
        "--column", metavar="NAME", help="of Parquet and .jsonl (default: input_ids or text)"
    )


def add_marks(group: argparse._ActionsContainer) -> None:
    """Declares `--bos` and `--eos`."""
    for mark, where in (("bos", "before"), ("eos", "after")):
        group.add_argument(
            f"--{mark}",
            metavar="ID",
            help=f"a token {where} each document: its id, or the word `tokenizer` for its own",
        )


def windows_from_arguments(args: argparse.Namespace, tokenizer: Any) -> WindowSet:
    """The windows that `args.windows` and the options name.

    Args:
        args: The parsed arguments; `vocab_size` and `sequence_ids` are regarded if they are there.
        tokenizer: The teacher's, or None.

    Raises:
        InvalidArgumentError: An option is missing, wrong, or has no effect.
        FormatError, CacheIOError: As `open_tokens`.
    """
    from sparselogits.capture.given_windows import GivenWindows
    from sparselogits.tokens.opening import open_tokens
    from sparselogits.tokens.packed_windows import pack

    if _is_window_array(args.windows):
        refuse_token_arguments(args, f"{args.windows} holds (N, S) windows")
        return GivenWindows(args.windows)
    documents = open_tokens(
        args.windows,
        tokenizer=tokenizer,
        column=args.column,
        dtype=args.token_dtype,
        document_end=args.document_end,
        vocab_size=getattr(args, "vocab_size", None),
    )
    if args.length is None:
        raise InvalidArgumentError(f"--length is needed to cut {args.windows} into windows")
    given = _given(args, _PACK_OPTIONS)
    if "--first-sequence-id" in given and getattr(args, "sequence_ids", None) is not None:
        raise InvalidArgumentError("--first-sequence-id has no effect beside --sequence-ids")
    chosen = {_PACK_OPTIONS[option]: value for option, value in given.items()}
    for mark in {"bos", "eos"} & set(chosen):
        chosen[mark] = mark_id(mark, chosen[mark], tokenizer)
    windows = pack(documents, **chosen)
    if args.document_end is not None and not windows.packing.knows_documents:
        raise InvalidArgumentError(
            f"--document-end has no effect with --packing "
            f"{windows.packing.packing} and no --bos or --eos"
        )
    return windows


def refuse_token_arguments(args: argparse.Namespace, why: str) -> None:
    """Refuses every option of `add_token_arguments`, where there is nothing to cut.

    Raises:
        InvalidArgumentError: One is given; the message ends with `why`.
    """
    for option in _given(args, {**_SOURCE_OPTIONS, **_PACK_OPTIONS}):
        raise InvalidArgumentError(f"{option} has no effect: {why}")


def mark_id(mark: str, value: str, tokenizer: Any) -> int:
    """The id of `--bos` or `--eos`.

    Raises:
        InvalidArgumentError: Neither an id nor the word `tokenizer`; or the tokenizer has none.
    """
    if value.isdecimal():
        return int(value)
    if value != "tokenizer":
        raise InvalidArgumentError(f"--{mark} must be an id or `tokenizer`, got {value!r}")
    found = getattr(tokenizer, f"{mark}_token_id", None)
    if found is None:
        raise InvalidArgumentError(f"--{mark} tokenizer: the tokenizer has no {mark} token")
    return int(found)


def _given(args: argparse.Namespace, options: dict[str, str]) -> dict[str, Any]:
    values = {option: getattr(args, name) for option, name in options.items()}
    return {option: value for option, value in values.items() if value is not None}


def _is_window_array(path: str) -> bool:
    """Whether it is a `.npy` of two dimensions; raises where it is none that can be read."""
    from sparselogits.tokens.flat_stream import FlatTokens

    return path.endswith(".npy") and FlatTokens(file=path).holds_rows
