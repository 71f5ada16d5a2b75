"""`capture_many`: one pass of a teacher over token windows, for any number of consumers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sparselogits.capture.model_facts import context_length, output_head, resolve_vocab_size
from sparselogits.capture.progress import ProgressCallback, ProgressMeter
from sparselogits.capture.windows import Window, WindowSource, WindowStream
from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import nn

    from sparselogits.capture.sinks import RowSink
    from sparselogits.capture.teacher_rows import TeacherRows

_CHUNK_BYTES = 128 << 20
# Chunks that are sampled or wait for it while the next one is computed. One keeps the sampling
# thread busy, the other one bridges the body of the next batch.
_CHUNKS_IN_FLIGHT = 2


def capture_many(
    model: nn.Module,
    windows: WindowSource,
    sinks: Sequence[RowSink],
    *,
    vocab_size: int | None = None,
    tokenizer: Any = None,
    batch_size: int = 8,
    chunk_rows: int | None = None,
    sequence_ids: Iterable[int] | None = None,
    targets_mask: WindowSource | None = None,
    progress: bool | ProgressCallback = True,
    flush_seconds: float = 60.0,
    overlap: bool = True,
) -> int:
    """One pass of the teacher for several consumers: caches of other samplers, measurements.

    Arguments are those of `capture`. Each sink gets all rows of a batch (`add`), then is told that
    the batch is complete (`finish`). A window that every sink already holds is skipped. Sinks are
    flushed every `flush_seconds` and, so that nothing finished is lost, when the pass ends early.

    With `overlap` sinks work in a thread of their own (`add`, `finish` and `flush`, in order, one
    call at a time), `holds` is called by the caller's thread, and up to two chunks wait for them.

    Returns:
        The number of positions of the windows done in this run, empty ones included.

    Raises:
        InvalidArgumentError, VocabularyMismatchError: As `capture`.
        BaseException: What a sink raised, as it is, at the next chunk.
    """
    import torch

    from sparselogits.capture.devices import sampling_thread
    from sparselogits.capture.documents import DocumentRuns
    from sparselogits.capture.handoff import Handoff
    from sparselogits.capture.modes import evaluation_mode, float32_head
    from sparselogits.capture.replay import SplitModel
    from sparselogits.capture.teacher_rows import teacher_rows

    vocab_size = resolve_vocab_size(model, tokenizer, vocab_size)
    if chunk_rows is None:
        chunk_rows = min(4096, max(64, _CHUNK_BYTES // (4 * vocab_size)))
    for name, value in (("batch_size", batch_size), ("chunk_rows", chunk_rows)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgumentError(f"{name} must be a positive integer, got {value!r}")
    context = context_length(model)
    stream = WindowStream(
        windows,
        vocab_size=vocab_size,
        max_length=context,
        sequence_ids=sequence_ids,
        targets_mask=targets_mask,
    )
    consumer = _Consumer(sinks, flush_seconds)
    meter = ProgressMeter(progress, stream.num_positions)
    meter.skip(min((sink.num_positions for sink in sinks), default=0))
    with torch.inference_mode(), evaluation_mode(model), float32_head(model):
        probe = _probe(vocab_size, context)
        split = SplitModel(model, vocab_size, probe)
        documents = DocumentRuns(split, probe)
        thread_state = sampling_thread(output_head(model).weight.device)  # type: ignore[arg-type]
        try:
            with Handoff(_CHUNKS_IN_FLIGHT if overlap else 0, thread_state) as handoff:
                for batch in stream.batches(batch_size, skip=consumer.holds):
                    left = sum(int(window.captured.sum()) for window in batch)
                    if left == 0:
                        handoff.put(partial(consumer.finish, batch))
                    for rows in teacher_rows(split, documents, batch, chunk_rows):
                        left -= len(rows.positions)
                        handoff.put(partial(consumer.add, rows, None if left else batch))
                        del rows  # or two chunks would be alive while the next is computed
                    meter.reach(consumer.positions, consumer.sequences)
            meter.reach(consumer.positions, consumer.sequences)
        except BaseException:
            for sink in sinks:
                with suppress(Exception):  # the error that ended the pass is the one to see
                    sink.flush()
            raise
        finally:
            meter.close()
    return consumer.positions


class _Consumer:
    """What is done with rows, in whichever thread: all sinks get them, and time is kept.

    Attributes:
        positions, sequences: Done so far in this pass, empty positions included.
    """

    def __init__(self, sinks: Sequence[RowSink], flush_seconds: float) -> None:
        self._sinks = sinks
        self._flush_seconds = flush_seconds
        self._last_flush = time.monotonic()
        self.positions = 0
        self.sequences = 0

    def holds(self, window: Window) -> bool:
        """Whether no sink needs the window; each of them checks its tokens."""
        held = [sink.holds(window) for sink in self._sinks]
        return bool(held) and all(held)

    def add(self, rows: TeacherRows, finished: Sequence[Window] | None) -> None:
        """Takes rows; `finished` are the windows of the batch that these rows complete."""
        from sparselogits.capture.teacher_rows import check_rows

        check_rows(rows)
        for sink in self._sinks:
            sink.add(rows)
        if finished is not None:
            self.finish(finished)

    def finish(self, windows: Sequence[Window]) -> None:
        """Tells the sinks that all rows of these windows are there."""
        for sink in self._sinks:
            sink.finish(windows)
        self.positions += sum(len(window.tokens) for window in windows)
        self.sequences += len(windows)
        if time.monotonic() - self._last_flush >= self._flush_seconds:
            for sink in self._sinks:
                sink.flush()
            self._last_flush = time.monotonic()


def _probe(vocab_size: int, context: int | None) -> Any:
    """Ids for the self-check, spread over the vocabulary: two rows, so that chunks cross them."""
    import torch

    length = min(8, context or 8)
    return (torch.arange(2 * length) * max(1, vocab_size // 17) % vocab_size).view(2, length)
