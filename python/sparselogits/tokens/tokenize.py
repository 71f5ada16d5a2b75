"""Text goes through a tokenizer once and is kept as a Megatron-LM pair."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens.megatron_writer import MegatronWriter, megatron_dtype
from sparselogits.tokens.rows import RowReader
from sparselogits.tokens.tokenizing import token_batches, vocabulary_of


def tokenize(
    reader: RowReader,
    tokenizer: Any,
    prefix: str | os.PathLike[str],
    *,
    bos: int | None = None,
    eos: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes PREFIX.bin and PREFIX.idx: ids of uint16 if the vocabulary allows, else int32.

    Args:
        reader: The text; see `open_rows`.
        tokenizer: A Hugging Face tokenizer, or one of the library `tokenizers`.
        prefix: Of both files, which must not exist.
        bos: An id to write before each document.
        eos: An id to write behind each document.
        progress: Called with (done, total) in a unit of the reader.

    Raises:
        InvalidArgumentError: A file exists; `bos` or `eos` is outside the vocabulary.
        FormatError, CacheIOError: The text is damaged or cannot be read; the pair cannot be
            written. Nothing remains of it then.
    """
    vocab_size = vocabulary_of(tokenizer)
    for name, value in (("bos", bos), ("eos", eos)):
        if value is not None and not 0 <= value < vocab_size:
            raise InvalidArgumentError(f"{name} {value} is outside [0, {vocab_size})")
    with MegatronWriter(prefix, megatron_dtype(vocab_size)) as writer:
        for batch in token_batches(reader, tokenizer, vocab_size):
            writer.append(*_marked(batch.ids, batch.lengths, bos, eos))
            if progress is not None:
                progress(batch.done, reader.size)


def _marked(
    ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64], bos: int | None, eos: int | None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    ends = np.cumsum(lengths)
    if eos is not None:
        ids = np.insert(ids, ends, eos)
        lengths = lengths + 1
        ends = np.cumsum(lengths)
    if bos is not None:
        ids = np.insert(ids, ends - lengths, bos)
        lengths = lengths + 1
    return ids, lengths
