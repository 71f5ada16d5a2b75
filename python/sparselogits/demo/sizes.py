"""What a position costs: in our cache, in the paper's layout, as full logits."""

from __future__ import annotations

from dataclasses import dataclass

from sparselogits.inspect import PAPER_BITS_PER_ENTRY, inspect_cache
from sparselogits.reader import Cache

_FULL_BYTES_PER_LOGIT = 2  # float16


@dataclass(frozen=True)
class CacheSize:
    """Attributes, all per position except the first:
    rounds: Draws.
    ids: Unique tokens.
    records_bytes: Everything but the stored input tokens, the share of all headers included.
    total_bytes: All files of the cache.
    paper_bytes: The same entries in the paper's layout, 24 bits each.
    """

    rounds: int
    ids: float
    records_bytes: float
    total_bytes: float
    paper_bytes: float


def cache_size(cache: Cache) -> CacheSize:
    """Measures a cache, byte by byte (`sparselogits inspect`)."""
    ids = cache.num_entries / cache.num_positions
    return CacheSize(
        rounds=cache.config.rounds,
        ids=ids,
        records_bytes=float(inspect_cache(cache.path)["records_bytes_per_position"]),
        total_bytes=cache.nbytes / cache.num_positions,
        paper_bytes=ids * PAPER_BITS_PER_ENTRY / 8,
    )


def full_logits_bytes(vocab_size: int) -> int:
    """Bytes of one position's logits in float16."""
    return vocab_size * _FULL_BYTES_PER_LOGIT
