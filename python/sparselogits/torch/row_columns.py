"""What one row of somebody's own tokenised dataset says: tokens, labels, documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import integer_array
from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.batch import IGNORED_LABEL

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowColumns:
    """A row of S tokens, its padding taken off.

    Attributes:
        tokens: (S,).
        labels: (S,), not shifted; the tokens themselves where the row has none.
        documents: Lengths that sum to S.
    """

    tokens: Ints
    labels: Ints
    documents: Ints

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> RowColumns:
        """The columns `input_ids`, `labels`, `attention_mask` and `seq_lengths` of a row.

        Raises:
            InvalidArgumentError: A column does not fit `input_ids`.
        """
        tokens = integer_array("input_ids", row["input_ids"])
        labels = _column(row, "labels", tokens)
        mask = _column(row, "attention_mask", tokens)
        if mask is not None:
            tokens = tokens[mask != 0]
            labels = labels if labels is None else labels[mask != 0]
        documents = np.array([len(tokens)], np.int64)
        if row.get("seq_lengths") is not None:
            documents = integer_array("seq_lengths", row["seq_lengths"])
            if documents.sum() != len(tokens) or documents.min(initial=1) < 1:
                raise InvalidArgumentError(
                    f"seq_lengths is {documents.tolist()}; lengths of documents are at least 1 and "
                    f"sum to the row's {len(tokens)} tokens"
                )
        return cls(tokens, tokens if labels is None else labels, documents)

    @property
    def next_labels(self) -> Ints:
        """(S,): the label of the next token, -100 behind the last of a document."""
        labels = np.full(len(self.labels), IGNORED_LABEL, np.int64)
        labels[:-1] = self.labels[1:]
        labels[self._last] = IGNORED_LABEL
        return labels

    @property
    def wanted(self) -> npt.NDArray[np.bool_]:
        """(S,): whether the loss is to see a row: as its next label says.

        Behind the last token of a document there is no label; its own says whether it belongs.
        """
        wanted: npt.NDArray[np.bool_] = self.next_labels != IGNORED_LABEL
        wanted[self._last] = self.labels[self._last] != IGNORED_LABEL
        return wanted

    @property
    def positions(self) -> Ints:
        """(S,): of a token within its document."""
        starts = np.cumsum(self.documents) - self.documents
        return np.arange(len(self.tokens)) - np.repeat(starts, self.documents)

    @property
    def _last(self) -> Ints:
        ends = np.cumsum(self.documents) - 1
        return ends[ends >= 0]


def _column(row: Mapping[str, Any], name: str, tokens: Ints) -> Ints | None:
    values = row.get(name)
    if values is None:
        return None
    column = integer_array(name, values)
    if len(column) != len(tokens):
        raise InvalidArgumentError(f"{name} has length {len(column)} and input_ids {len(tokens)}")
    return column
