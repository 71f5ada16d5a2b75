"""Where the bytes of a cache go, and what its records look like: data for the CLI and for tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from sparselogits.cache_models import model_file
from sparselogits.codec_model import CodecModel
from sparselogits.reader import Cache
from sparselogits.reader import open as open_cache
from sparselogits.record_stats import RecordStats
from sparselogits.shard_check import verify_shard

# The message; everything else but the tokens is overhead. LZ4-wrapped blocks hold messages too,
# whose sections cannot be told apart in the file.
RECORD_SECTIONS = (
    "presence",
    "counts",
    "entry_numbers",
    "ids",
    "weights",
    "classes",
    "wrapped_blocks",
)
# The RS-KD paper's layout: 17 bits of id and 7 of probability per entry (appendix on storage).
PAPER_BITS_PER_ENTRY = 24

Progress = Callable[[int, int], None]


def inspect_cache(path: str | os.PathLike[str], progress: Progress | None = None) -> dict[str, Any]:
    """Accounts for every byte of a cache.

    Args:
        path: The cache's directory.
        progress: Called with bytes done and bytes to do.

    Returns:
        JSON-ready: path, complete, digest, config, metadata, totals (`sequences`, `positions`,
        `entries`, `bytes`), `sections` (name → `bits`, `bytes`, `bits_per_position`; they sum to
        all files exactly), `records_bytes_per_position` (everything but the tokens and the models;
        tokens in LZ4-wrapped blocks count), `overhead_bits_per_position` (everything but tokens,
        models, presence, counts, ids, weights, classes and wrapped blocks; manifest included),
        `models` (one dict a model), `shards` (one dict a shard with its model and its own sections
        in bits).

    Raises:
        FormatError, CacheIOError: As `sparselogits.open` and `Cache.verify`.
    """
    cache = open_cache(path)
    manifest = cache.manifest
    bits: Counter[str] = Counter()
    models = [model.core for model in cache.models]
    shards = []
    done = 0
    for number, row in enumerate(manifest.shards):
        report = _after(progress, done, sum(row.bytes for row in manifest.shards))
        found = cache._reading_shard(number, partial(verify_shard, models=models, progress=report))
        digest = found["model_digest"]
        bits.update(found["sections"])
        done += row.bytes
        if report is not None:
            report(row.bytes, row.bytes)
        shards.append(
            {
                "file": row.file,
                "uuid": row.uuid,
                "bytes": row.bytes,
                "sequences": row.sequences,
                "positions": row.positions,
                "entries": row.entries,
                "model": model_file(digest) if digest else None,
                "section_bits": dict(found["sections"]),
            }
        )
    bits["manifest"] = 8 * manifest.num_bytes
    if manifest.models:
        bits["models"] = 8 * manifest.model_bytes
    positions = cache.num_positions
    all_bits = sum(bits.values())
    payload = sum(bits[name] for name in RECORD_SECTIONS)
    tokens, model_bits = bits["tokens"], 8 * manifest.model_bytes
    return {
        "path": cache.path,
        "complete": cache.complete,
        "digest": cache.digest,
        "config": cache.config.to_dict(),
        "metadata": cache.metadata,
        "sequences": len(cache),
        "positions": positions,
        "entries": cache.num_entries,
        "bytes": cache.nbytes,
        "sections": {
            name: {
                "bits": size,
                "bytes": size / 8,
                "bits_per_position": _per(size, positions),
            }
            for name, size in bits.items()
        },
        "records_bytes_per_position": _per((all_bits - tokens - model_bits) / 8, positions),
        "overhead_bits_per_position": _per(all_bits - tokens - model_bits - payload, positions),
        "models": [_describe(model) for model in cache.models],
        "shards": shards,
    }


def stats_cache(path: str | os.PathLike[str], progress: Progress | None = None) -> dict[str, Any]:
    """What the records of a cache look like, beside the layout of the RS-KD paper.

    Args:
        path: The cache's directory.
        progress: Called with bytes done and bytes to do, first of `inspect_cache`, then of the
            records.

    Returns:
        JSON-ready: totals, `empty_positions`, `unique_ids` (per position with entries: mean, min,
        max, percentiles, histogram), `counts` (histogram of counts and their mean; counts
        caches), `weight_sums` (per position with entries: mean, min, max), `entropy_nats` (of the
        stored sample, mean, min and max over positions with entries: a lower bound of the
        teacher's, biased by the finite sample), `bytes_per_position` by section,
        `paper_bytes_per_position` (24 bits an entry) and `ratio_to_paper`.

    Raises:
        FormatError, CacheIOError: As `sparselogits.open` and `Cache.verify`.
    """
    sizes = inspect_cache(path, progress)
    cache = open_cache(path)
    stats = _record_stats(cache, progress)
    positions = cache.num_positions
    paper = _per(cache.num_entries * PAPER_BITS_PER_ENTRY / 8, positions)
    records = sizes["records_bytes_per_position"]
    return {
        "path": cache.path,
        "complete": cache.complete,
        "sequences": len(cache),
        "positions": positions,
        "entries": cache.num_entries,
        "codec": cache.config.codec,
        "model_bytes": cache.manifest.model_bytes,
        "rounds": cache.config.rounds,
        "value_kind": cache.config.value_kind,
        **stats.summary(),
        "bytes_per_position": {
            name: _per(section["bytes"], positions) for name, section in sizes["sections"].items()
        },
        "records_bytes_per_position": records,
        "paper_bytes_per_position": paper,
        "ratio_to_paper": _per(records, paper) if records is not None and paper else None,
    }


def _describe(model: CodecModel) -> dict[str, Any]:
    return {
        "file": model.file_name,
        "bytes": model.nbytes,
        "classes": model.num_classes,
        "codes_tokens": model.codes_tokens,
    }


def _record_stats(cache: Cache, progress: Progress | None) -> RecordStats:
    step = 1 << 16
    stats = RecordStats()
    for start in range(0, cache.num_positions, step):
        stop = min(start + step, cache.num_positions)
        stats.add(cache.read_positions(np.arange(start, stop)))
        if progress is not None:
            progress(stop, cache.num_positions)
    return stats


def _per(amount: float, of: float) -> float | None:
    return amount / of if of else None


def _after(progress: Progress | None, done: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda shard_done, _: progress(done + shard_done, total)
