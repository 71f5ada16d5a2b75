"""SparseLogitCollator: rows of one's own tokenised dataset, with the targets that a cache holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from sparselogits.alignment import checked_window
from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.row_columns import RowColumns
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.trainer_inputs import TARGETS_KEY

if TYPE_CHECKING:
    from sparselogits.reader import Cache


@dataclass(frozen=True)
class SparseLogitCollator:
    """Makes a batch of rows that name their sequence of a cache.

    For a dataset with its own order, sampler and columns: a row carries `input_ids` and the
    `sequence_id` under which the teacher's distributions were captured. The tokens of every row are
    compared with the fingerprint in the cache, so that a row that was shuffled, cut, padded or
    tokenised differently is an error and not a student that learns the wrong targets. All rows of
    a batch are decoded in one call.

    Columns of a row:

    * `input_ids`: the tokens that the teacher read. With `attention_mask`, those where it is 1.
    * `column`: which sequence of the cache they are.
    * `labels`, optional, one per token as Hugging Face has them (not shifted): where the label of
      token t + 1 is -100, row t gets no target. The last one follows the label of its own token.
    * `seq_lengths`, optional, the lengths of the documents that the row holds end to end, as TRL
      packs them. `position_ids` begin at 0 in each of them, and its last token has no label.

    The result is what `sparselogits.torch.trainer_inputs` describes, padded on the right. It has no
    `attention_mask`: a causal model does not look at what is to the right, and rows of padding have
    no target.

    Attributes:
        cache: An open cache.
        column: The name of the column.
        by_index: The column holds indices into the cache, not sequence ids.
        pad_token_id: Fills `input_ids` behind shorter rows.
        pad_to_multiple_of: Widens the batch to a multiple of this.
        flatten: Lay the rows end to end in one row of the batch, without padding, with
            `position_ids` that begin at 0 in each. Models of transformers keep documents apart by
            these, where there is no `attention_mask`; flash attention only in one flattened row.

    Raises:
        FingerprintMismatchError: When called: a row's tokens are not those the teacher read.
        SequenceNotFoundError: When called: the cache has no such sequence.
        InvalidArgumentError: When called: a column is missing or has another length.
    """

    cache: Cache
    column: str = "sequence_id"
    by_index: bool = False
    pad_token_id: int = 0
    pad_to_multiple_of: int = 1
    flatten: bool = False

    def __post_init__(self) -> None:
        if self.pad_to_multiple_of < 1:
            raise InvalidArgumentError(
                f"pad_to_multiple_of is {self.pad_to_multiple_of}; it must be at least 1"
            )

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """`rows` as inputs of a model and its loss; see `trainer_inputs`."""
        if not rows:
            raise InvalidArgumentError("a batch needs at least one row")
        indices = [self._index(row) for row in rows]
        read = [RowColumns.of(row) for row in rows]
        for index, row in zip(indices, read, strict=True):
            checked_window(self.cache, {index: row.tokens}, index)
        sparse = self.cache.read_sequences(indices)
        wanted = np.concatenate([row.wanted for row in read])
        entries = np.diff(sparse.offsets) * wanted
        selected = slice(None) if wanted.all() else np.repeat(wanted, np.diff(sparse.offsets))
        place = self._places(np.array([len(row.tokens) for row in read], np.int64))
        inputs = {
            "input_ids": place(np.concatenate([row.tokens for row in read]), self.pad_token_id),
            "shift_labels": place(np.concatenate([row.next_labels for row in read]), IGNORED_LABEL),
        }
        if self.flatten or any(len(row.documents) > 1 for row in read):
            inputs["position_ids"] = place(np.concatenate([row.positions for row in read]), 0)
        widths = place(entries, 0).reshape(-1)
        offsets = torch.zeros(len(widths) + 1, dtype=torch.int64)
        torch.cumsum(widths, 0, out=offsets[1:])
        targets = SparseTargets(
            offsets,
            torch.from_numpy(sparse.token_ids[selected]),
            torch.from_numpy(sparse.weights[selected]),
            sparse.vocab_size,
        )
        return {**inputs, TARGETS_KEY: targets}

    def _index(self, row: Mapping[str, Any]) -> int:
        for name in ("input_ids", self.column):
            if name not in row:
                raise InvalidArgumentError(
                    f"a row has no {name}, only {', '.join(sorted(row))}: "
                    "was the column removed (remove_unused_columns)?"
                )
        number = int(row[self.column])
        return number if self.by_index else self.cache.index_of(number)

    def _places(self, lengths: npt.NDArray[np.int64]) -> _Places:
        multiple = self.pad_to_multiple_of
        if self.flatten:
            lengths = lengths.sum(keepdims=True)
        width = -(-int(lengths.max()) // multiple) * multiple
        return _Places(np.arange(width) < lengths[:, None])


@dataclass(frozen=True)
class _Places:
    """Where values that lie end to end go in a (B, S) batch."""

    real: npt.NDArray[np.bool_]

    def __call__(self, values: npt.NDArray[Any], fill: int) -> torch.Tensor:
        padded = np.full(self.real.shape, fill, np.int64)
        padded[self.real] = values
        return torch.from_numpy(padded)
