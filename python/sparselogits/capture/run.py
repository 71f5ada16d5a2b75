"""`capture`: one pass of a teacher over token windows into one cache."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sparselogits.capture.model_facts import resolve_vocab_size
from sparselogits.capture.progress import ProgressCallback
from sparselogits.capture.provenance import capture_metadata
from sparselogits.capture.teacher_pass import capture_many
from sparselogits.capture.window_set import window_facts
from sparselogits.capture.windows import WindowSource
from sparselogits.codec_model import CodecModel
from sparselogits.config import DEFAULT_CODEC, CacheConfig
from sparselogits.errors import InvalidArgumentError
from sparselogits.fingerprint import fingerprint_tokenizer
from sparselogits.reader import open as open_cache
from sparselogits.writer import CacheWriter

if TYPE_CHECKING:
    from torch import nn

    from sparselogits.reader import Cache


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
    offset: float = 0.0,
    overlap: bool = True,
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
            batch; sort them by length to waste less. A source with a `description` (str to str)
            has it recorded.
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
        offset: "systematic" only: added to the uniform of each position, modulo 1. Two captures
            with offsets that differ by 1/2 are together one with twice the rounds.
        overlap: Whether sampling and writing run in a thread beside the teacher. What is stored
            does not depend on it.

    Returns:
        The finished cache, opened.

    Raises:
        InvalidArgumentError: A window or argument is wrong; the model's forward cannot be split
            (a self-check compares chunked with full logits), or it cannot keep documents apart
            (another one compares packed documents with each alone); a logit is NaN or +inf. What
            was finished before stays in the unfinished cache.
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
    facts = capture_metadata(
        model,
        seed,
        targets_mask is not None,
        metadata,
        offset=offset,
        source=window_facts(windows),
    )
    from sparselogits.capture.sinks import CacheSink

    with CacheWriter(path, config, facts, codec_model, resume=resume) as writer:
        capture_many(
            model,
            windows,
            [CacheSink(writer, seed, offset)],
            vocab_size=vocab_size,
            batch_size=batch_size,
            chunk_rows=chunk_rows,
            sequence_ids=sequence_ids,
            targets_mask=targets_mask,
            progress=progress,
            flush_seconds=flush_seconds,
            overlap=overlap,
        )
    return open_cache(path)
