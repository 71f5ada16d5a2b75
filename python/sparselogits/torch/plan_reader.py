"""PlanReader: makes the batches that plans describe."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparselogits.alignment import TokenSource, checked_window
from sparselogits.errors import InvalidArgumentError, SequenceNotFoundError
from sparselogits.torch.batch import IGNORED_LABEL, Batch, batch_from_arrays
from sparselogits.torch.batch_plan import TO_THE_END, BatchPlan

if TYPE_CHECKING:
    from sparselogits.reader import Cache


class PlanReader:
    """Reads batches from one or several caches of one vocabulary.

    Args:
        caches: Open caches; `BatchPlan.caches` counts in this order.
        input_ids: For each cache the tokens of its sequences, or None where those that it stores
            are meant. They are checked against the cache's fingerprints as they are read.
        pad_token_id: Fills `input_ids` behind rows that are shorter than the longest of a batch.
        prefetch_batches: Batches that `stream` makes ahead of the one that is used.
        num_threads: Threads that make them.
        pin_memory: Whether batches lie in page-locked memory.

    Raises:
        InvalidArgumentError: An argument makes no sense, or the tokens of a cache are nowhere.
        MismatchError: The caches differ in their vocabulary.
    """

    def __init__(
        self,
        caches: Sequence[Cache],
        *,
        input_ids: Sequence[TokenSource | None] | None = None,
        pad_token_id: int = 0,
        prefetch_batches: int = 2,
        num_threads: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self._caches = tuple(caches)
        self._sources = (None,) * len(self._caches) if input_ids is None else tuple(input_ids)
        self._pad_token_id = pad_token_id
        self._pin_memory = pin_memory

    def read(self, plan: BatchPlan) -> Batch:
        """The batch that a plan describes.

        Raises:
            SequenceNotFoundError: A sequence is not from 0 to len(cache) - 1.
            InvalidArgumentError: There is no such cache, or a piece ends behind its sequence.
            CorruptionError: A block is damaged.
            FingerprintMismatchError: Given tokens are not those that the teacher saw.
        """
        pieces = [self._piece(*place) for place in _places(plan)]
        lengths = np.array([len(tokens) for tokens, *_ in pieces], np.int64)
        rows = list(zip(plan.row_offsets[:-1].tolist(), plan.row_offsets[1:].tolist(), strict=True))
        width = max((int(lengths[a:b].sum()) for a, b in rows), default=0)
        input_ids = np.full((len(rows), width), self._pad_token_id, np.int64)
        labels = np.full((len(rows), width), IGNORED_LABEL, np.int64)
        entries = np.zeros((len(rows), width), np.int64)
        for row, (first, last) in enumerate(rows):
            at = 0
            for tokens, following, offsets, *_ in pieces[first:last]:
                where = slice(at, at + len(tokens))
                input_ids[row, where] = tokens
                labels[row, where] = following
                entries[row, where] = np.diff(offsets)
                at += len(tokens)
        names = [name for *_, name in pieces]
        return batch_from_arrays(
            input_ids,
            labels,
            np.concatenate([[0], np.cumsum(entries)]),
            np.concatenate([np.empty(0, np.int32), *(ids for *_, ids, _, _ in pieces)]),
            np.concatenate([np.empty(0, np.float32), *(w for *_, w, _ in pieces)]),
            vocab_size=self._caches[0].config.vocab_size,
            sequence_ids=np.array(names, np.uint64),
            piece_lengths=lengths,
            row_offsets=plan.row_offsets,
        )

    def stream(self, plans: Iterable[BatchPlan]) -> Generator[Batch, None, None]:
        """The batches of many plans, in order."""
        yield from map(self.read, plans)

    def _piece(
        self, cache_index: int, sequence: int, start: int, stop: int
    ) -> tuple[
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int64],
        npt.NDArray[np.int32],
        npt.NDArray[np.float32],
        int,
    ]:
        """Tokens, labels, offsets, ids and weights of a piece, and the id of its sequence."""
        if cache_index >= len(self._caches):
            raise InvalidArgumentError(f"there are {len(self._caches)} caches, none {cache_index}")
        cache, source = self._caches[cache_index], self._sources[cache_index]
        if sequence >= len(cache):
            raise SequenceNotFoundError(
                f"{cache.path} has {len(cache)} sequences, there is no index {sequence}"
            )
        length = int(cache.sequence_lengths[sequence])
        stop = length if stop == TO_THE_END else stop
        sparse = cache.read(sequence, start, stop)
        if source is None:
            stored = cache.read(sequence, start, min(stop + 1, length)).input_ids
            assert stored is not None
            tokens = stored.astype(np.int64)
        else:
            tokens = checked_window(cache, source, sequence)[start : stop + 1]
        labels = np.full(stop - start, IGNORED_LABEL, np.int64)
        labels[: max(len(tokens) - 1, 0)] = tokens[1:]
        assert sparse.sequence_id is not None
        return (
            tokens[: stop - start],
            labels,
            sparse.offsets,
            sparse.token_ids,
            sparse.weights,
            sparse.sequence_id,
        )


def _places(plan: BatchPlan) -> Iterator[tuple[int, int, int, int]]:
    columns = (plan.caches, plan.sequences, plan.starts, plan.stops)
    return zip(*(column.tolist() for column in columns), strict=True)
