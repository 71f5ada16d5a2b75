"""What `check_capture` reports, and what it calls a mismatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparselogits.capture import model_facts
from sparselogits.capture.provenance import NO_DOCUMENT_MASK
from sparselogits.fingerprint import fingerprint_tokenizer
from sparselogits.reader import Cache

if TYPE_CHECKING:
    from torch import nn

    from sparselogits.capture.check_sink import CheckSink
    from sparselogits.capture.draw_statistics import DrawTests

# A deviation is a mismatch where it is beyond chance and large enough to matter. The first limits
# stand for one false alarm in about a million checks; the second ones leave room for a body in
# another precision or on another device, whose logits differ by some hundredths at random.
_CHANCE = 1e-6
_Z = 5.0
_SURPRISE = 14.0  # nats: 1e-6
_LEAST_KL = 1e-5  # nats
_LEAST_EXCESS = 2e-3  # nats
_LEAST_SURPRISE = 1e-3  # nats a position
# Of draws that another seed would not give anyway.
_LEAST_REDRAWN = 0.5


@dataclass(frozen=True)
class Problem:
    """Attributes:
    name: "tokens", "windows", "empty_positions", "impossible_draws", "distribution", "shift",
        "redraw", "teacher" or "tokenizer".
    message: What was found, with figures.
    """

    name: str
    message: str


@dataclass(frozen=True)
class CaptureCheck:
    """What `check_capture` found.

    Attributes:
        verdict: "ok", or "mismatch" where there is a problem.
        problems: What does not fit.
        sequences: How many were compared.
        draws: Tests of the stored draws, see `DrawTests`; None where there were none to compare.
        redraw_match: Share of the stored draws that come out again with the recorded seed; None
            where none is recorded. On the machine that captured, 1 but for a few boundary draws.
        redraw_positions: Share of positions of which every draw does.
        chance_match: What another seed has in common with the stored draws.
        notes: What could not be checked, or differs without being wrong.
    """

    verdict: str
    problems: list[Problem]
    sequences: int
    draws: DrawTests | None
    redraw_match: float | None
    redraw_positions: float | None
    chance_match: float | None
    notes: list[str]

    @property
    def ok(self) -> bool:
        return self.verdict == "ok"


def report_check(
    model: nn.Module,
    tokenizer: Any,
    cache: Cache,
    chosen: npt.NDArray[np.int64],
    sink: CheckSink,
    given: Mapping[str, str] | None,
) -> CaptureCheck:
    """The verdict on what a `CheckSink` has seen of the chosen sequences.

    Args:
        given: What the windows that were given say of themselves; None where none were.
    """
    notes: list[str] = []
    problems = [*_windows(cache, chosen, sink), *_identities(model, tokenizer, cache, notes)]
    if given is not None:
        problems += _documents(cache, given)
    if sink.empty and cache.metadata.get("targets_mask") == "none":
        message = f"{sink.empty} positions have no draws, and no mask is recorded"
        if given is not None:
            problems.append(Problem("empty_positions", message))
        else:
            notes.append(message)
    tests = sink.statistics.result()
    if tests is not None:
        problems += _draws(tests, cache, sink.shifted)
    if not cache.complete:
        notes.append("the cache is unfinished: only what is in it was checked")
    match = chance = whole = None
    if sink.redrawn:
        match, chance = sink.same / sink.redrawn, sink.same_by_chance / sink.redrawn
        whole = sink.same_positions * cache.config.rounds / sink.redrawn
        if chance > 0.999:
            notes.append("the teacher is so sure that every seed gives the same draws")
        elif (match - chance) / (1 - chance) < _LEAST_REDRAWN and not problems:
            problems.append(
                Problem(
                    "redraw",
                    f"drawing again with the recorded seed gives {match:.1%} of the stored draws, "
                    f"and another seed {chance:.1%}: they were not drawn with that seed",
                )
            )
    elif tests is not None:
        notes.append("no seed is recorded: nothing was drawn again")
    return CaptureCheck(
        verdict="mismatch" if problems else "ok",
        problems=problems,
        sequences=len(sink.seen) - len(sink.other_tokens),
        draws=tests,
        redraw_match=match,
        redraw_positions=whole,
        chance_match=chance,
        notes=notes,
    )


def _windows(cache: Cache, chosen: npt.NDArray[np.int64], sink: CheckSink) -> list[Problem]:
    problems = []
    if sink.other_tokens:
        problems.append(
            Problem(
                "tokens",
                f"{len(sink.other_tokens)} windows have other tokens than those that were captured "
                f"(the first one is window {sink.other_tokens[0]}): their draws were not compared",
            )
        )
    if sink.unknown:
        problems.append(
            Problem(
                "windows",
                f"{len(sink.unknown)} windows are not in the cache (the first one is window "
                f"{sink.unknown[0]})",
            )
        )
    missing = [index for index in chosen.tolist() if index not in sink.seen]
    if missing:
        problems.append(
            Problem(
                "windows",
                f"{len(missing)} of the {len(chosen)} chosen sequences are not among the windows "
                f"(the first one has the id {cache.sequence_ids[missing[0]]})",
            )
        )
    return problems


def _documents(cache: Cache, given: Mapping[str, str]) -> list[Problem]:
    """The same tokens with other documents have other distributions at most positions."""
    now = given.get("document_mask", NO_DOCUMENT_MASK)
    recorded = cache.metadata.get("document_mask", NO_DOCUMENT_MASK)
    if now == recorded:
        return []
    message = f"their document_mask is {now!r}, recorded is {recorded!r}"
    return [Problem("windows", message)]


def _identities(model: nn.Module, tokenizer: Any, cache: Cache, notes: list[str]) -> list[Problem]:
    problems = []
    facts = cache.metadata
    dtype, recorded_dtype = model_facts.teacher_dtype(model), facts.get("teacher_dtype")
    fingerprint = model_facts.weights_fingerprint(model)
    recorded = facts.get("teacher_weights_fingerprint")
    if recorded is None:
        notes.append("no fingerprint of the teacher's weights is recorded")
    elif recorded_dtype != dtype:
        notes.append(f"the teacher was {recorded_dtype} and is {dtype} now")
    elif recorded != fingerprint:
        problems.append(
            Problem(
                "teacher", f"its weights have the fingerprint {fingerprint}, recorded is {recorded}"
            )
        )
    if tokenizer is not None and cache.config.tokenizer_fingerprint is not None:
        now = fingerprint_tokenizer(tokenizer)
        if now != cache.config.tokenizer_fingerprint:
            problems.append(
                Problem(
                    "tokenizer",
                    f"its fingerprint is {now}, recorded is {cache.config.tokenizer_fingerprint}",
                )
            )
    return problems


def _draws(
    tests: DrawTests, cache: Cache, shifted: tuple[float, float, float] | None
) -> list[Problem]:
    problems = []
    if tests.impossible:
        problems.append(
            Problem(
                "impossible_draws",
                f"{tests.impossible} stored tokens have a probability below 2^-62 and cannot have "
                "been drawn",
            )
        )
    in_cells = tests.p_value < _CHANCE and tests.kl > _LEAST_KL
    in_entropy = abs(tests.excess_z) > _Z and abs(tests.excess) > _LEAST_EXCESS
    in_rarity = tests.surprise > max(_SURPRISE, _LEAST_SURPRISE * tests.positions)
    if not (in_cells or in_entropy or in_rarity):
        return problems
    message = (
        f"the stored draws are not draws from the teacher's probabilities: chi-square "
        f"{tests.chi_square:.1f} with {tests.degrees_of_freedom} degrees of freedom (p = "
        f"{tests.p_value:.1e}), -log q is {tests.excess:+.3f} nats from the entropy of "
        f"{tests.entropy:.3f} (z = {tests.excess_z:+.1f})"
    )
    shift = _shift(tests, shifted)
    if shift is None and in_entropy and 0.2 < tests.sharpness < 5:
        message += f"; a temperature of about {cache.config.temperature / tests.sharpness:.2g}"
        message += f" instead of {cache.config.temperature:.2g} would explain the latter"
    problems.append(Problem("distribution", message))
    return [*problems, shift] if shift is not None else problems


def _shift(tests: DrawTests, shifted: tuple[float, float, float] | None) -> Problem | None:
    """Whether draws fit a neighbour of their position, as is so where they are off by one."""
    if shifted is None:
        return None
    before, own, behind = shifted
    place, best = ("t-1", before) if before < behind else ("t+1", behind)
    if not own - best > 0.5 * (own - tests.entropy) > 0:
        return None
    return Problem(
        "shift",
        f"the draws of position t fit position {place} better than their own: -log q is "
        f"{best:.3f} there and {own:.3f} nats here",
    )
