"""`capture_with_vllm`: token windows through a vLLM engine, draws into a cache."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from sparselogits.capture.progress import ProgressCallback, ProgressMeter
from sparselogits.capture.window_rows import append_windows
from sparselogits.capture.window_set import window_facts
from sparselogits.capture.windows import Window, WindowSource, WindowStream
from sparselogits.checks import integer
from sparselogits.codec_model import CodecModel
from sparselogits.config import DEFAULT_CODEC, CacheConfig
from sparselogits.errors import InvalidArgumentError
from sparselogits.fingerprint import fingerprint_tokenizer
from sparselogits.integrations.vllm.assumptions import check_assumptions
from sparselogits.integrations.vllm.draw_request import (
    MAX_CHUNK_ROWS,
    DrawRequest,
    check_options,
)
from sparselogits.integrations.vllm.engine_facts import (
    check_engine,
    engine_metadata,
    engine_vocab_size,
    longest_window,
)
from sparselogits.integrations.vllm.packed_draws import WindowDraws, unpack
from sparselogits.reader import open as open_cache
from sparselogits.writer import CacheWriter

if TYPE_CHECKING:
    from sparselogits.reader import Cache

_CHUNK_BYTES = 128 << 20
_CHUNK_ROWS = 1024  # what vLLM itself takes at a time for prompt logprobs


def capture_with_vllm(
    llm: Any,
    windows: WindowSource,
    path: str | os.PathLike[str],
    *,
    rounds: int = 50,
    sampler: str = "multinomial",
    temperature: float = 1.0,
    proposal_temperature: float = 1.0,
    seed: int = 0,
    offset: float = 0.0,
    tokenizer: Any = None,
    metadata: Mapping[str, str] | None = None,
    store_tokens: bool = True,
    batch_windows: int = 256,
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
    """Runs token windows through a vLLM engine and writes a cache of draws at their positions.

    EXPERIMENTAL: no GPU has run this (docs/vllm.md). The workers draw with
    `sl.sample` from the float32 logits of each position, keyed by (seed, sequence_id, position) as
    `sl.capture` does. Position t of a window gets the distribution of token t+1.

    Args:
        llm: A `vllm.LLM`, made after `enable()` with hf_overrides={"head_dtype": "float32"} and
            max_model_len of at least the longest window plus 1.
        windows, path, rounds, sampler, temperature, proposal_temperature, seed, tokenizer,
            metadata, store_tokens, sequence_ids, targets_mask, weight_dtype, codec, codec_model,
            progress, resume, flush_seconds: As in `sl.capture`.
        offset: Of the systematic sampler, see `sl.sample`.
        batch_windows: Windows handed to the engine at a time; it idles a moment between two.
        chunk_rows: Rows of float32 logits that a worker holds at a time, at most 4,096; default:
            128 MiB, but no more than 1,024 rows.
        vocab_size: Tokens that are real; default: len(tokenizer), else the engine's vocabulary.

    Returns:
        The finished cache, opened.

    Raises:
        MismatchError: The installed vLLM is not the one that the plugin knows; or the cache at
            `path` has another config, metadata or window than this run.
        InvalidArgumentError: A window, argument or setting of the engine is wrong; its workers
            run without the plugin; a logit is NaN or +inf (the message names request, sequence
            and position). What was finished before stays in the unfinished cache.
        VocabularyMismatchError: The engine's head has fewer rows than the vocabulary has tokens.
        CacheIOError: The operating system refused, or another writer has the cache.
    """
    check_assumptions()
    check_engine(llm)
    vocab_size = engine_vocab_size(llm, tokenizer, vocab_size)
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
    batch_windows = integer("batch_windows", batch_windows, 1, 1 << 20)
    if chunk_rows is None:
        chunk_rows = min(_CHUNK_ROWS, max(64, _CHUNK_BYTES // (4 * vocab_size)))
    chunk_rows = integer("chunk_rows", chunk_rows, 1, MAX_CHUNK_ROWS)
    engine = _Engine(llm, config, seed, offset, chunk_rows)
    stream = WindowStream(
        windows,
        vocab_size=vocab_size,
        max_length=longest_window(llm),
        sequence_ids=sequence_ids,
        targets_mask=targets_mask,
    )
    masked = targets_mask is not None
    source = window_facts(windows)
    facts = engine_metadata(llm, seed, masked, metadata, offset=offset, source=source)
    from sparselogits.capture.sinks import CacheSink

    with CacheWriter(path, config, facts, codec_model, resume=resume) as writer:
        held = CacheSink(writer, seed)
        meter = ProgressMeter(progress, stream.num_positions)
        meter.skip(writer.num_positions)
        positions = sequences = 0
        last_flush = time.monotonic()
        try:
            for batch in stream.batches(batch_windows, skip=held.holds):
                _append(writer, batch, engine.draws(batch))
                positions += sum(len(window.tokens) for window in batch)
                sequences += len(batch)
                meter.reach(positions, sequences)
                if time.monotonic() - last_flush >= flush_seconds:
                    writer.flush()
                    last_flush = time.monotonic()
        finally:
            meter.close()
    return open_cache(path)


class _Engine:
    """Asks an engine for the draws of windows."""

    def __init__(
        self, llm: Any, config: CacheConfig, seed: int, offset: float, chunk_rows: int
    ) -> None:
        self._llm = llm
        self._sampling_params = import_module("vllm").SamplingParams
        self._config = config
        self._chunk_rows = chunk_rows
        self._sample = {
            "rounds": config.rounds,
            "sampler": config.sampler,
            "temperature": config.temperature,
            "proposal_temperature": config.proposal_temperature,
            "seed": seed,
            "offset": offset,
        }
        check_options(self._sample)

    def draws(self, windows: Sequence[Window]) -> list[WindowDraws]:
        """The draws of windows that have captured positions, in their order."""
        asked = [window for window in windows if window.captured.any()]
        if not asked:
            return []
        outputs = self._llm.generate(
            [{"prompt_token_ids": window.tokens.tolist()} for window in asked],
            [self._parameters(window) for window in asked],
            use_tqdm=False,
        )
        return [_checked(window, output) for window, output in zip(asked, outputs, strict=True)]

    def _parameters(self, window: Window) -> Any:
        from sparselogits.capture.documents import several_documents

        if several_documents(window):
            raise InvalidArgumentError(
                f"window {window.index} has several documents: vLLM attends across them, so give "
                "it one document a window"
            )
        request = DrawRequest(
            sequence_id=window.sequence_id,
            vocab_size=self._config.vocab_size,
            captured=window.captured,
            chunk_rows=self._chunk_rows,
            sample=self._sample,
        )
        scored = len(window.tokens) - 1
        return self._sampling_params(
            max_tokens=1,
            temperature=0.0,
            detokenize=False,
            # Fixed-id scoring of token 0: never computed, but it makes vLLM keep every prompt row
            # and refuse the settings under which it could not. It has no form for one token.
            prompt_logprob_token_ids=np.zeros((scored, 1), np.int32) if scored else None,
            skip_reading_prefix_cache=True,
            extra_args=request.to_extra_args(),
        )


def _checked(window: Window, output: Any) -> WindowDraws:
    draws = unpack(output.prompt_token_id_logprobs)
    captured = int(window.captured.sum())
    if draws.sequence_id != window.sequence_id or len(draws.lengths) != captured:
        raise InvalidArgumentError(
            f"window {window.index}, sequence {window.sequence_id} with {captured} captured "
            f"positions: the engine answered with sequence {draws.sequence_id} and "
            f"{len(draws.lengths)} positions"
        )
    return draws


def _append(writer: CacheWriter, windows: Sequence[Window], draws: Sequence[WindowDraws]) -> None:
    values = [part.weights if part.counts is None else part.counts for part in draws]
    append_windows(
        writer,
        windows,
        [part.lengths for part in draws],
        [part.token_ids for part in draws],
        [part for part in values if part is not None],
    )
