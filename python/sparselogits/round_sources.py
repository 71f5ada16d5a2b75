"""Whether the draws of several caches add up to one sample of all their rounds.

Multinomial draws of different seeds are independent: their counts add up to multinomial draws.

A systematic sample of N rounds with the uniform u counts the points (j + u) / N, j = 0 ... N - 1,
in each token's interval of the cumulative p. The points of M samples whose uniforms are u + o + m/M
modulo 1, m = 0 ... M - 1, are together

    (j + (u + o + m/M) mod 1) / N = (k + M (u + o) mod 1) / (M N),   k = 0 ... M N - 1,

so their counts are those of one systematic sample of M N rounds with the uniform M (u + o) mod 1.
The sampler's integers keep this to the last bit where M is a power of two; else the offsets are
rounded, by 2^-53. Any other set of offsets leaves points at unequal distances, and the same offset
twice counts each point twice: unbiased still, but no sample of that many rounds.

Stratified draws of two seeds are independent, two in each stratum of width 1 / N, where a sample of
2 N rounds has one in each of half that width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sparselogits.errors import InvalidArgumentError
from sparselogits.manifest import Manifest

# What a capture writes, and what a sum of caches has instead: the seeds and offsets of its parts.
_SEED, _SEEDS = "seed", "seeds"
_OFFSET, _OFFSETS = "systematic_offset", "systematic_offsets"
_ADDED = "added_rounds"
KEYS_OF_DRAWS = frozenset({_SEED, _SEEDS, _OFFSET, _OFFSETS, _ADDED})

# Offsets are floats: how far m / M may be from what was written.
_TOLERANCE = 1e-12


def added_draws(sources: Sequence[tuple[Path, Manifest]]) -> dict[str, str]:
    """The metadata of the draws of a sum: what was added, so that it can be added to again.

    REQUIRES: the caches have the same configuration but for their rounds.

    Raises:
        InvalidArgumentError: The sum is no sample of the rounds together; says why.
    """
    config = sources[0][1].config
    if config.value_kind != "counts":
        raise InvalidArgumentError(
            f"{sources[0][0]} is a weights cache: only counts add up (config.value_kind)"
        )
    if config.sampler == "multinomial":
        return _added_multinomial(sources)
    if config.sampler == "systematic":
        return _added_systematic(sources)
    if config.sampler == "stratified":
        reason = "two draws in each stratum are not one draw in each of twice as many strata"
    else:
        reason = "only multinomial and systematic draws are known to add up"
    raise InvalidArgumentError(
        f"{sources[0][0]} holds {config.sampler} draws, which rounds='add' refuses: {reason}"
    )


def _added_multinomial(sources: Sequence[tuple[Path, Manifest]]) -> dict[str, str]:
    owner: dict[str, Path] = {}
    for directory, manifest in sources:
        for seed in _seeds(directory, manifest):
            other = owner.setdefault(seed, directory)
            if other is not directory:
                raise InvalidArgumentError(
                    f"{directory} has the same seed as {other}, {seed}: multinomial draws of one "
                    "seed are the same draws, which added up are no more rounds"
                )
    return {_SEEDS: ",".join(owner), _ADDED: _rounds_of_parts(sources)}


def _added_systematic(sources: Sequence[tuple[Path, Manifest]]) -> dict[str, str]:
    first_directory, first = sources[0]
    seed = _seeds(first_directory, first)
    part_rounds = {_part_rounds(directory, manifest) for directory, manifest in sources}
    owner: dict[float, Path] = {}
    for directory, manifest in sources:
        other = _seeds(directory, manifest)
        if other != seed:
            raise InvalidArgumentError(
                f"metadata['seed'] of {first_directory} is {seed[0]}, that of {directory} "
                f"{other[0]}: systematic draws add up only where their uniforms are the same "
                "but for the offset"
            )
        for offset in _offsets(directory, manifest):
            if offset in owner:
                raise InvalidArgumentError(
                    f"{directory} has the systematic_offset {offset}, as {owner[offset]} has: the "
                    "same points twice are no more rounds. Sample one with another offset"
                )
            owner[offset] = directory
    if len(part_rounds) > 1:
        raise InvalidArgumentError(
            f"systematic draws add up only with equal rounds, got {sorted(part_rounds)}: their "
            "points would lie at unequal distances"
        )
    offsets = sorted(owner)
    wanted = [offsets[0] + m / len(offsets) for m in range(len(offsets))]
    if any(abs(o - w) > _TOLERANCE for o, w in zip(offsets, wanted, strict=True)):
        raise InvalidArgumentError(
            f"the systematic offsets {_joined(offsets)} are not o + m/{len(offsets)}, "
            f"m = 0 ... {len(offsets) - 1}: the points together would lie at unequal distances. "
            f"With the first they would be {_joined([round(w, 15) for w in wanted])}"
        )
    (rounds,) = part_rounds
    return {
        _SEED: seed[0],
        _OFFSETS: _joined(offsets),
        _ADDED: ",".join([str(rounds)] * len(offsets)),
    }


def _seeds(directory: Path, manifest: Manifest) -> list[str]:
    """The seeds of a cache's draws, one unless it is a sum of multinomial ones."""
    for key in (_SEED, _SEEDS):
        if key not in manifest.metadata:
            continue
        seeds = manifest.metadata[key].split(",") if key == _SEEDS else [manifest.metadata[key]]
        if all(seed.isascii() and seed.isdigit() for seed in seeds):
            return [str(int(seed)) for seed in seeds]
        raise InvalidArgumentError(
            f"metadata[{key!r}] of {directory} is {manifest.metadata[key]!r}: it must be the seed "
            "of sl.sample, by which it can be told whether the draws add up"
        )
    raise InvalidArgumentError(
        f"metadata of {directory} has no {_SEED!r}, without which nobody can tell whether its "
        f"draws add up: where it is known, sl.repack(..., metadata={{{_SEED!r}: ...}}) adds it"
    )


def _offsets(directory: Path, manifest: Manifest) -> list[float]:
    text = manifest.metadata.get(_OFFSETS, manifest.metadata.get(_OFFSET, "0"))
    try:
        offsets = [float(part) for part in text.split(",")]
    except ValueError:
        offsets = []
    if not offsets or not all(0 <= offset < 1 for offset in offsets):
        raise InvalidArgumentError(
            f"the systematic offset of {directory} is {text!r}: it must be from 0 to below 1"
        )
    return offsets


def _part_rounds(directory: Path, manifest: Manifest) -> int:
    """Rounds of each sample that a systematic cache was made of."""
    parts = len(_offsets(directory, manifest))
    rounds = manifest.config.rounds
    if rounds % parts:
        raise InvalidArgumentError(
            f"{directory} has {rounds} rounds of {parts} systematic offsets: "
            "its metadata cannot be right"
        )
    return rounds // parts


def _rounds_of_parts(sources: Sequence[tuple[Path, Manifest]]) -> str:
    return ",".join(
        manifest.metadata.get(_ADDED, str(manifest.config.rounds)) for _, manifest in sources
    )


def _joined(offsets: list[float]) -> str:
    return ",".join(repr(offset) for offset in offsets)
