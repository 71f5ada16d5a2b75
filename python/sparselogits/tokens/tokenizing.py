"""Rows become token ids: text through a tokenizer, a batch a call; ids as they are, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError
from sparselogits.tokens.documents import MOST_TOKENS
from sparselogits.tokens.rows import RowBatch, RowReader


@dataclass(frozen=True)
class TokenBatch:
    """Some consecutive documents.

    Attributes:
        ids: Their token ids end to end, (T,) uint32.
        lengths: How many each has, (D,) int64.
        done: How far the reader is, in the unit of its `size`.
    """

    ids: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.int64]
    done: int


def vocabulary_of(tokenizer: Any) -> int:
    """How many tokens a tokenizer knows, added ones included.

    Raises:
        InvalidArgumentError: It does not say.
    """
    if hasattr(tokenizer, "__len__"):
        return len(tokenizer)
    if hasattr(tokenizer, "get_vocab_size"):  # of the library `tokenizers`
        return int(tokenizer.get_vocab_size())
    raise InvalidArgumentError(f"a {type(tokenizer).__name__} is no tokenizer: it has no len()")


def token_batches(
    reader: RowReader, tokenizer: Any, vocab_size: int | None
) -> Iterator[TokenBatch]:
    """All documents of a reader as ids, without special tokens.

    Args:
        reader: The rows.
        tokenizer: A Hugging Face tokenizer, or one of the library `tokenizers`; None where the
            rows are ids.
        vocab_size: Ids must lie below it; None: below 2^32.

    Raises:
        InvalidArgumentError: An id is outside the vocabulary; the message names the row.
        CorruptionError, CacheIOError: As the reader.
    """
    limit = MOST_TOKENS if vocab_size is None else vocab_size
    for batch in reader.batches():
        if batch.texts is not None:
            ids, lengths = _encoded(tokenizer, batch.texts)
        else:
            assert batch.ids is not None
            assert batch.lengths is not None
            ids, lengths = batch.ids, batch.lengths
        if ids.size and not 0 <= ids.min() <= ids.max() < limit:
            raise _outside(batch, ids, lengths, limit)
        yield TokenBatch(ids.astype(np.uint32), lengths, batch.done)


def _encoded(
    tokenizer: Any, texts: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if callable(tokenizer):
        # Not verbose: documents may be longer than the model's context, windows are not.
        rows = tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
    else:
        rows = [item.ids for item in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    return np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum())), lengths


def _outside(
    batch: RowBatch, ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64], limit: int
) -> InvalidArgumentError:
    where = int(((ids < 0) | (ids >= limit)).argmax())
    row = int(np.searchsorted(np.cumsum(lengths), where, "right"))
    inside = where - int(lengths[:row].sum())
    return InvalidArgumentError(
        f"{batch.place(row)}: token {inside} has id {ids[where]}, outside [0, {limit})"
    )
