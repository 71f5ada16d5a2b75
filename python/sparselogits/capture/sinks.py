"""What consumes a teacher pass: anything that takes rows, and the one that fills a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sparselogits.capture.devices import for_sampling
from sparselogits.capture.documents import several_documents
from sparselogits.capture.provenance import NO_DOCUMENT_MASK
from sparselogits.capture.teacher_rows import TeacherRows
from sparselogits.capture.window_rows import append_windows
from sparselogits.capture.windows import Window
from sparselogits.errors import FingerprintMismatchError, InvalidArgumentError
from sparselogits.fingerprint import fingerprint_tokens
from sparselogits.reader import open as open_cache
from sparselogits.sampling import sample

if TYPE_CHECKING:
    from sparselogits.writer import CacheWriter


class RowSink(Protocol):
    """A consumer of a teacher pass. Several can share one pass: see `capture_many`."""

    @property
    def num_positions(self) -> int:
        """Positions that an earlier run already gave to this sink."""

    def holds(self, window: Window) -> bool:
        """Whether this sink has no need of the window; one that no sink needs is skipped."""

    def add(self, rows: TeacherRows) -> None:
        """Takes the next captured rows of the current batch of windows."""

    def finish(self, windows: Sequence[Window]) -> None:
        """Says that all captured rows of these windows have been added."""

    def flush(self) -> None:
        """Makes finished windows durable."""


class CacheSink:
    """Draws from every row and appends finished windows to a cache.

    Args:
        writer: An open writer; its config says how to sample. What it holds already is kept.
        seed: Key of the draws, beside sequence_id and position.
        offset: Of systematic draws, see `sparselogits.sample`.
    """

    def __init__(self, writer: CacheWriter, seed: int, offset: float = 0.0) -> None:
        self._writer = writer
        self._seed = seed
        self._offset = offset
        mask = writer.metadata.get("document_mask", NO_DOCUMENT_MASK)
        self._says_no_documents = mask == NO_DOCUMENT_MASK
        self._held: dict[int, int] = {}  # sequence_id → fingerprint of an earlier run
        self.num_positions = writer.num_positions
        if writer.num_sequences:
            cache = open_cache(writer.path)
            self._held = dict(
                zip(cache.sequence_ids.tolist(), cache.fingerprints.tolist(), strict=True)
            )
        self._clear()

    def holds(self, window: Window) -> bool:
        """Whether an earlier run finished this window.

        Raises:
            FingerprintMismatchError: It did, but with other tokens.
            InvalidArgumentError: It has several documents, and the cache says that none has.
        """
        if several_documents(window) and self._says_no_documents:
            raise InvalidArgumentError(
                f"window {window.index} has several documents, but the cache at "
                f"{self._writer.path} says document_mask {NO_DOCUMENT_MASK!r} in its metadata"
            )
        held = self._held.get(window.sequence_id)
        if held is not None and held != fingerprint_tokens(window.tokens):
            raise FingerprintMismatchError(
                f"window {window.index}: the cache at {self._writer.path} holds sequence_id "
                f"{window.sequence_id} already, with other tokens"
            )
        return held is not None

    def add(self, rows: TeacherRows) -> None:
        held = [s for s in np.unique(rows.sequence_ids) if int(s) in self._held]
        if held:  # two sinks of one pass can have been interrupted at different windows
            rows = _select(rows, ~np.isin(rows.sequence_ids, held))
        if not len(rows.positions):
            return
        config = self._writer.config
        draws = sample(
            for_sampling(rows.logits),
            rounds=config.rounds,
            sampler=config.sampler,
            temperature=config.temperature,
            proposal_temperature=config.proposal_temperature,
            seed=self._seed,
            offset=self._offset,
            position_keys=np.stack([rows.sequence_ids, rows.positions.astype(np.uint64)], axis=1),
        )
        self._lengths.append(np.diff(_array(draws.offsets)))
        self._token_ids.append(_array(draws.token_ids))
        if draws.counts is not None:
            self._values.append(_array(draws.counts).astype(np.uint16, copy=False))
        else:
            self._values.append(_array(draws.weights))

    def finish(self, windows: Sequence[Window]) -> None:
        windows = [window for window in windows if not self.holds(window)]
        if windows:
            append_windows(self._writer, windows, self._lengths, self._token_ids, self._values)
        self._clear()

    def flush(self) -> None:
        self._writer.flush()

    def _clear(self) -> None:
        self._lengths: list[npt.NDArray[np.int64]] = []
        self._token_ids: list[npt.NDArray[np.int32]] = []
        self._values: list[npt.NDArray[Any]] = []  # counts or weights


def _select(rows: TeacherRows, keep: npt.NDArray[np.bool_]) -> TeacherRows:
    import torch

    index = torch.from_numpy(np.flatnonzero(keep)).to(rows.logits.device)
    return TeacherRows(rows.sequence_ids[keep], rows.positions[keep], rows.logits[index])


def _array(drawn: Any) -> npt.NDArray[Any]:
    return drawn if isinstance(drawn, np.ndarray) else np.asarray(drawn.cpu())
