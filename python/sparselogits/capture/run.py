"""`capture` and `capture_many`: one pass of a teacher over token windows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sparselogits.capture.model_facts import context_length, resolve_vocab_size
from sparselogits.capture.progress import ProgressCallback, ProgressMeter
from sparselogits.capture.provenance import capture_metadata
from sparselogits.capture.window_set import window_facts
from sparselogits.capture.windows import Window, WindowSource, WindowStream
from sparselogits.codec_model import CodecModel
from sparselogits.config import DEFAULT_CODEC, CacheConfig
from sparselogits.errors import InvalidArgumentError
from sparselogits.fingerprint import fingerprint_tokenizer
from sparselogits.reader import open as open_cache
from sparselogits.writer import CacheWriter

if TYPE_CHECKING:
    from torch import nn

    from sparselogits.capture.sinks import RowSink
    from sparselogits.reader import Cache

_CHUNK_BYTES = 128 << 20


def capture(
    model: nn.Module,
    windows: WindowSource,
    path: str | os.PathLike[str],
    *,
    rounds: int = 50,
    sampler: str = "multinomial",
    temperature: float = 1.0,
    proposal_temperature: float = 1.0,
    seed: int = 0,
    tokenizer: Any = None,
    metadata: Mapping[str, str] | None = None,
    store_tokens: bool = True,
    batch_size: int = 8,
    chunk_rows: int | None = None,
    sequence_ids: Iterable[int] | None = None,
    targets_mask: WindowSource | None = None,
    vocab_size: int | None = None,
    weight_dtype: str = "float32",
    codec: str = DEFAULT_CODEC,
    codec_model: CodecModel | str | os.PathLike[str] | None = None,
    progress: bool | ProgressCallback = True,
    resume: bool = True,
    flush_seconds: float = 60.0,
) -> Cache:
    """Runs a causal LM over token windows and writes a cache of draws from its distributions.

    Position t of a window gets the distribution of token t+1 given tokens ≤ t; the last position
    is captured too. The model's body runs once a batch; head and sampling run a chunk of rows at a
    time, so a (B, S, V) tensor never exists. The head computes in float32 whatever the body's
    dtype. Draws are keyed by (seed, sequence_id, position): they do not depend on batches, chunks
    or the order of windows. The same machine and settings give the same bytes; another
    `batch_size`, `chunk_rows`, device or library version can move a logit in its last bits, and
    then, rarely, a draw that fell on a boundary (see docs/capture.md for the measured rate).

    Args:
        model: A Hugging Face causal LM, or a module with the same conventions, on any device.
        windows: An (N, S) integer array, the path of a `.npy` that holds one (memory-mapped), or
            an iterable of 1-D integer arrays. Ragged windows are padded on the right within a
            batch; sort them by length to waste less.
        path: The cache directory.
        rounds: Draws per position, N.
        sampler: "multinomial" (the RS-KD paper, section 3) or "systematic" (about half the bytes
            for the same error, see docs/capture.md).
        temperature: Divides the logits before the softmax.
        proposal_temperature: t of the proposal q ∝ p^t; other than 1 stores importance weights.
        seed: Key of the draws.
        tokenizer: The teacher's tokenizer: gives vocab_size and the recorded fingerprint.
        metadata: More facts to store, str to str; may replace "teacher", "bos_rule" and
            "window_packing".
        store_tokens: Whether the input ids are stored too.
        batch_size: Windows per run of the body.
        chunk_rows: Rows per run of head and sampler; default: 128 MiB of float32 logits.
        sequence_ids: One unsigned 64-bit id a window; default: the window's index.
        targets_mask: Layout of `windows`, bool. False at t leaves position t empty, e.g. where
            token t+1 belongs to a prompt.
        vocab_size: Tokens that are real; default: len(tokenizer), else model.config.vocab_size.
            Head rows beyond it are cut before the softmax.
        weight_dtype: Dtype of stored importance weights.
        codec: "packed" or "compact", see `CacheConfig`.
        codec_model: For "compact": the `model` of `CacheWriter`; default: it trains one.
        progress: True shows progress on stderr where that is a terminal; a callable gets a
            `CaptureProgress` at most twice a second.
        resume: Go on with what an earlier run left at `path`, finished or not, if its config and
            metadata are the same; windows that it holds are skipped. False refuses to.
        flush_seconds: What is finished is committed this often.

    Returns:
        The finished cache, opened.

    Raises:
        InvalidArgumentError: A window or argument is wrong; the model's forward cannot be split
            (a self-check compares chunked with full logits); a logit is NaN or +inf. What was
            finished before stays in the unfinished cache.
        VocabularyMismatchError: The head has fewer rows than the vocabulary has tokens.
        MismatchError: The cache at `path` has another config, metadata or window than this run.
        CacheIOError: The operating system refused, or another writer has the cache.
    """
    vocab_size = resolve_vocab_size(model, tokenizer, vocab_size)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InvalidArgumentError(f"seed must be an integer, got {seed!r}")
    config = CacheConfig(
        vocab_size=vocab_size,
        rounds=rounds,
        sampler=sampler,
        temperature=temperature,
        proposal_temperature=proposal_temperature,
        store_tokens=store_tokens,
        tokenizer_fingerprint=None if tokenizer is None else fingerprint_tokenizer(tokenizer),
        weight_dtype=weight_dtype,
        codec=codec,
    )
    made = {**window_facts(windows), **(metadata or {})}
    facts = capture_metadata(model, seed, targets_mask is not None, made)
    from sparselogits.capture.sinks import CacheSink

    with CacheWriter(path, config, facts, codec_model, resume=resume) as writer:
        capture_many(
            model,
            windows,
            [CacheSink(writer, seed)],
            vocab_size=vocab_size,
            batch_size=batch_size,
            chunk_rows=chunk_rows,
            sequence_ids=sequence_ids,
            targets_mask=targets_mask,
            progress=progress,
            flush_seconds=flush_seconds,
        )
    return open_cache(path)


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
) -> int:
    """One pass of the teacher for several consumers: caches of other samplers, measurements.

    Arguments are those of `capture`. Each sink gets all rows of a batch (`add`), then is told that
    the batch is complete (`finish`). A window that every sink already holds is skipped. Sinks are
    flushed every `flush_seconds` and, so that nothing finished is lost, when the pass ends early.

    Returns:
        The number of positions of the windows done in this run, empty ones included.

    Raises:
        InvalidArgumentError, VocabularyMismatchError: As `capture`.
    """
    import torch

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
    meter = ProgressMeter(progress, stream.num_positions)
    meter.skip(min((sink.num_positions for sink in sinks), default=0))
    done = 0

    def held_by_all(window: Window) -> bool:
        held = [sink.holds(window) for sink in sinks]  # each of them checks its tokens
        return bool(sinks) and all(held)

    with torch.inference_mode(), evaluation_mode(model), float32_head(model):
        split = SplitModel(model, vocab_size, _probe(vocab_size, context))
        last_flush = time.monotonic()
        try:
            for batch in stream.batches(batch_size, skip=held_by_all):
                for rows in teacher_rows(split, batch, chunk_rows):
                    for sink in sinks:
                        sink.add(rows)
                for sink in sinks:
                    sink.finish(batch)
                positions = sum(len(window.tokens) for window in batch)
                done += positions
                meter.add(positions, len(batch))
                if time.monotonic() - last_flush >= flush_seconds:
                    for sink in sinks:
                        sink.flush()
                    last_flush = time.monotonic()
        except BaseException:
            for sink in sinks:
                with suppress(Exception):  # the error that ended the pass is the one to see
                    sink.flush()
            raise
        finally:
            meter.close()
    return done


def _probe(vocab_size: int, context: int | None) -> Any:
    """Ids for the self-check, spread over the vocabulary: two rows, so that chunks cross them."""
    import torch

    length = min(5, context or 5)
    return (torch.arange(2 * length) * max(1, vocab_size // 11) % vocab_size).view(2, length)
