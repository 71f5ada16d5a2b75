"""`open_tokens`: the token source for whatever it is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.durable import io_error
from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens.dataset_rows import DatasetRows, is_dataset
from sparselogits.tokens.documents import TokenDocuments
from sparselogits.tokens.flat_stream import FlatTokens, ListedTokens
from sparselogits.tokens.megatron import MegatronTokens
from sparselogits.tokens.megatron_layout import is_pair
from sparselogits.tokens.parquet_files import ParquetFiles
from sparselogits.tokens.rows import RowReader
from sparselogits.tokens.spooled import SpooledTokens
from sparselogits.tokens.text_files import JsonLines, TextFiles
from sparselogits.tokens.tokenizing import vocabulary_of

_ROW_SUFFIXES = (".parquet", ".jsonl", ".txt")


def open_tokens(
    source: Any,
    *,
    tokenizer: Any = None,
    column: str | None = None,
    dtype: npt.DTypeLike | None = None,
    document_end: int | None = None,
    vocab_size: int | None = None,
) -> TokenDocuments:
    """Opens a corpus as a stream of token ids with document boundaries.

    Args:
        source: A path: a `.npy` (1-D stream, or (N, S) rows), a headerless file with `dtype`, a
            Megatron-LM pair (its prefix or one of the two files), a `.parquet`, `.jsonl` or `.txt`
            file, a folder of such files of one kind (taken in order of their names), or a list of
            them; or an object: a `datasets.Dataset`, a 1-D or 2-D array, a list of 1-D arrays.
        tokenizer: Of text; and what it knows is the vocabulary that ids are held against. A
            Hugging Face tokenizer, or one of the library `tokenizers`. No special tokens are
            added: that is `pack`'s matter.
        column: Of Parquet, datasets and `.jsonl`: the column with text or lists of ids. Default:
            "input_ids" or "text", whichever there is; of `.jsonl`: "text".
        dtype: "uint16" or "uint32": the file is headerless little-endian ids of this dtype.
        document_end: Of 1-D streams: the id that ends each document, and belongs to it.
        vocab_size: Ids must lie below it; default: what the tokenizer knows, else 2^32.

    Returns:
        The source, opened. What costs nothing has been checked; the rest is where it is read.

    Raises:
        InvalidArgumentError: No source is like this, or an option has no effect on it.
        FormatError: A file is damaged; file, byte, field and value are named.
        CacheIOError: A file cannot be read.
    """
    options = {"column": column, "dtype": dtype, "document_end": document_end}
    if isinstance(source, TokenDocuments):
        _refuse_unused(source.name, dict(options, tokenizer=tokenizer, vocab_size=vocab_size))
        return source
    if vocab_size is None and tokenizer is not None:
        vocab_size = vocabulary_of(tokenizer)
    if isinstance(source, (str, os.PathLike)) and not _is_rows(Path(source), dtype):
        return _open_ids(Path(source), options, vocab_size)
    if isinstance(source, (str, os.PathLike)) or _is_list_of_paths(source) or is_dataset(source):
        reader = open_rows(source, column=column)
        _refuse_unused(reader.name, {"dtype": dtype, "document_end": document_end})
        return SpooledTokens(reader, tokenizer, vocab_size=vocab_size)
    if hasattr(source, "__array__"):
        _refuse_unused("an array", {"column": column, "dtype": dtype})
        array = np.asarray(source)
        return FlatTokens(array, document_end=document_end, vocab_size=vocab_size)
    if isinstance(source, Sequence):
        _refuse_unused("a list of documents", options)
        return ListedTokens(source, vocab_size=vocab_size)
    raise InvalidArgumentError(
        f"tokens must be a path, an array, a dataset or a list of them, got a "
        f"{type(source).__name__}"
    )


def open_rows(source: Any, *, column: str | None = None) -> RowReader:
    """Opens what holds its documents as rows: Parquet, `.jsonl`, `.txt`, a dataset.

    Args:
        source: A file, a folder or a list of files, of one kind; or a `datasets.Dataset`.
        column: See `open_tokens`.

    Raises:
        As `open_tokens`.
    """
    if is_dataset(source):
        return DatasetRows(source, column)
    sources = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = [path for item in sources for path in _files(Path(item))]
    name = str(sources[0]) + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    suffixes = {path.suffix for path in paths}
    if len(suffixes) != 1:
        raise InvalidArgumentError(
            f"{name}: files must be of one kind, got {', '.join(sorted(suffixes)) or 'none'}"
        )
    suffix = suffixes.pop()
    if suffix == ".parquet":
        return ParquetFiles(paths, name, column)
    if suffix == ".jsonl":
        return JsonLines(paths, name, "text" if column is None else column)
    if suffix == ".txt":
        _refuse_unused(name, {"column": column})
        return TextFiles(paths, name)
    raise InvalidArgumentError(
        f"{name}: suffix {suffix!r} is not known; known are .npy, .bin, .idx, "
        f"{', '.join(_ROW_SUFFIXES)}; a headerless file of ids needs a dtype"
    )


def _open_ids(path: Path, options: dict[str, Any], vocab_size: int | None) -> TokenDocuments:
    dtype, document_end = options["dtype"], options["document_end"]
    if path.suffix == ".idx" or (path.suffix != ".npy" and is_pair(path)):
        _refuse_unused(f"{path}, a Megatron-LM pair", options)
        return MegatronTokens(path, vocab_size=vocab_size)
    if path.suffix == ".npy":
        _refuse_unused(str(path), {"column": options["column"], "dtype": dtype})
        return FlatTokens(file=path, document_end=document_end, vocab_size=vocab_size)
    _refuse_unused(str(path), {"column": options["column"]})
    if dtype is None:
        raise InvalidArgumentError(
            f"{path}: needs a dtype, uint16 or uint32, as a headerless file of ids, or its .idx "
            "beside it as a Megatron-LM pair"
        )
    return FlatTokens(file=path, dtype=dtype, document_end=document_end, vocab_size=vocab_size)


def _is_rows(path: Path, dtype: npt.DTypeLike | None) -> bool:
    """Whether a path holds rows; else it holds ids."""
    if path.suffix in (".npy", ".bin", ".idx") or path.suffix in _ROW_SUFFIXES:
        return path.suffix in _ROW_SUFFIXES
    return dtype is None and not is_pair(path)


def _files(path: Path) -> list[Path]:
    """A file itself; of a folder, what it and its folders hold of the known kinds, by name."""
    try:
        if not path.is_dir():
            path.stat()  # says so where it does not exist
            return [path]
        files = [found for found in path.rglob("*") if found.suffix in _ROW_SUFFIXES]
        files = sorted(found for found in files if not found.name.startswith("."))
        arrow = any(found.suffix == ".arrow" for found in path.iterdir())
    except OSError as error:
        raise io_error(error, "cannot read", path) from error
    if not files:
        hint = ": load it with datasets.load_from_disk, and give the dataset" if arrow else ""
        raise InvalidArgumentError(
            f"{path}: the folder holds none of {', '.join(_ROW_SUFFIXES)}{hint}"
        )
    return files


def _is_list_of_paths(source: Any) -> bool:
    items = source if isinstance(source, (list, tuple)) else []
    return bool(items) and all(isinstance(item, (str, os.PathLike)) for item in items)


def _refuse_unused(name: str, options: dict[str, Any]) -> None:
    for option, value in options.items():
        if value is not None:
            raise InvalidArgumentError(f"{name}: {option} {value!r} has no effect on it")
