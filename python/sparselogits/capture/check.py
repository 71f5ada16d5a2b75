"""`check_capture`: did I capture what I think? The teacher runs again on a part of a cache."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparselogits.capture.check_report import CaptureCheck, report_check
from sparselogits.capture.progress import ProgressCallback
from sparselogits.capture.provenance import NO_DOCUMENT_MASK
from sparselogits.capture.recorded_draws import recorded_draws
from sparselogits.capture.teacher_pass import capture_many
from sparselogits.capture.window_set import window_facts
from sparselogits.capture.windows import WindowSource
from sparselogits.errors import InvalidArgumentError
from sparselogits.reader import Cache
from sparselogits.reader import open as open_cache

if TYPE_CHECKING:
    from torch import nn


def check_capture(
    model: nn.Module,
    cache: Cache | str | os.PathLike[str],
    windows: WindowSource | None = None,
    *,
    fraction: float = 0.02,
    seed: int = 0,
    tokenizer: Any = None,
    sequence_ids: Iterable[int] | None = None,
    batch_size: int = 8,
    chunk_rows: int | None = None,
    progress: bool | ProgressCallback = True,
) -> CaptureCheck:
    """Runs the teacher again on some sequences of a finished cache and compares.

    Tokens are compared by fingerprint (all windows, where they are given). The stored draws are
    tested against the teacher's probabilities with the covariance of fresh draws of the same
    sampler, so that systematic and stratified draws are judged as strictly as independent ones,
    and they are drawn again with the recorded seed. See docs/capture.md for what is called a
    mismatch.

    Args:
        model: The teacher, as `capture` takes it.
        cache: A finished cache or its path.
        windows: What was captured, needed where the cache stores no tokens or where windows held
            several documents. None: the stored tokens.
        fraction: Share of the sequences to look at, in (0, 1]; at least one is.
        seed: Chooses the sequences. Not the seed of the draws: that one is in the cache.
        tokenizer: Compared with the recorded fingerprint.
        sequence_ids: Of `windows`, as they were given to `capture`.
        batch_size, chunk_rows, progress: As for `capture`.

    Raises:
        InvalidArgumentError: The cache is empty, or its windows are needed; an argument is wrong;
            the model cannot be captured from.
        VocabularyMismatchError: The model's head has fewer rows than the cache's vocabulary.
        FormatError: The cache is damaged.
    """
    from sparselogits.capture.check_sink import CheckSink

    if not isinstance(cache, Cache):
        cache = open_cache(cache)
    chosen = _choose(cache, fraction, seed)
    parts = recorded_draws(cache.config, cache.metadata)
    sink = CheckSink(cache, chosen, parts, replicate_seed=seed)
    given = None if windows is None else window_facts(windows)
    if windows is None:
        windows, sequence_ids = _stored_windows(cache, chosen)
    capture_many(
        model,
        windows,
        [sink],
        vocab_size=cache.config.vocab_size,
        batch_size=batch_size,
        chunk_rows=chunk_rows,
        sequence_ids=sequence_ids,
        progress=progress,
    )
    return report_check(model, tokenizer, cache, chosen, sink, given)


def _choose(cache: Cache, fraction: float, seed: int) -> npt.NDArray[np.int64]:
    if isinstance(fraction, bool) or not 0 < fraction <= 1:
        raise InvalidArgumentError(f"fraction must be above 0 and at most 1, got {fraction!r}")
    filled = np.flatnonzero(cache.sequence_lengths)
    if not len(filled):
        raise InvalidArgumentError(f"{cache.path} has no positions: there is nothing to check")
    count = max(1, round(fraction * len(filled)))
    return np.sort(np.random.default_rng(seed).choice(filled, count, replace=False))


def _stored_windows(
    cache: Cache, chosen: npt.NDArray[np.int64]
) -> tuple[list[npt.NDArray[np.int32]], list[int]]:
    mask = cache.metadata.get("document_mask", NO_DOCUMENT_MASK)
    if mask != NO_DOCUMENT_MASK:
        raise InvalidArgumentError(
            f"{cache.path} was captured from windows of several documents (document_mask "
            f"{mask!r}), and where those start is not stored: give the windows"
        )
    if not cache.config.store_tokens:
        raise InvalidArgumentError(f"{cache.path} stores no tokens: give the windows")
    windows = []
    for index in chosen.tolist():
        tokens = cache[index].input_ids
        assert tokens is not None
        windows.append(tokens)
    return windows, cache.sequence_ids[chosen].tolist()
