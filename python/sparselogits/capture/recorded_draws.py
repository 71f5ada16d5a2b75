"""How the draws of a cache can be made again: what its metadata says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparselogits.config import CacheConfig


@dataclass(frozen=True)
class DrawPart:
    """One call of `sparselogits.sample` a position; a sum of caches has several."""

    rounds: int
    seed: int
    offset: float


def recorded_draws(config: CacheConfig, facts: Mapping[str, str]) -> list[DrawPart]:
    """The parts of the draws of a cache, whose counts add up; none where that is not recorded.

    `capture` records "seed" and "systematic_offset", and `merge(..., rounds="add")` the same of
    each part: "seeds" or "systematic_offsets", and "added_rounds".
    """
    try:
        rounds = [int(part) for part in _listed(facts, "added_rounds", str(config.rounds))]
        seeds = [int(part) for part in _listed(facts, "seeds", facts.get("seed", ""))]
        offsets = [float(part) for part in _listed(facts, "systematic_offsets", _offset(facts))]
    except ValueError:
        return []
    seeds = seeds * len(rounds) if len(seeds) == 1 else seeds
    offsets = offsets * len(rounds) if len(offsets) == 1 else offsets
    usable = len(rounds) == len(seeds) == len(offsets) and sum(rounds) == config.rounds
    if not usable or min(rounds) < 1 or not all(0 <= seed < 2**64 for seed in seeds):
        return []
    return [DrawPart(*part) for part in zip(rounds, seeds, offsets, strict=True)]


def _listed(facts: Mapping[str, str], key: str, default: str) -> list[str]:
    return facts.get(key, default).split(",")


def _offset(facts: Mapping[str, str]) -> str:
    return facts.get("systematic_offset", "0")
