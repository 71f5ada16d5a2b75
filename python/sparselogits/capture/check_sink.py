"""The consumer of a teacher pass that compares a finished cache with what the teacher says now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparselogits.capture.devices import SAMPLES_IN_CPU_MEMORY, for_sampling
from sparselogits.capture.draw_statistics import DrawStatistics
from sparselogits.capture.recorded_draws import DrawPart
from sparselogits.capture.row_facts import Entries, Judged, RowFacts
from sparselogits.capture.teacher_rows import TeacherRows
from sparselogits.capture.windows import Window
from sparselogits.fingerprint import fingerprint_tokens
from sparselogits.reader import Cache
from sparselogits.sampling import sample

# At least so many replicates of positions, and at least so many of each: the error of their
# covariance is then far below what the tests can see.
_REPLICATED_POSITIONS = 4000
_LEAST_REPLICATES = 8


class CheckSink:
    """Compares stored draws of some sequences with the teacher's rows.

    Args:
        cache: A finished cache.
        chosen: The indices of the sequences that are looked at.
        parts: How the draws are said to have been made; none: they are not drawn again.
        replicate_seed: Gives the seeds of the replicates.

    Attributes:
        statistics: Of the draws.
        seen: Indices of sequences whose window came.
        unknown: Windows whose sequence_id the cache does not hold.
        other_tokens: Windows whose tokens are not those of the cache; they are not compared.
        empty: Positions without draws in sequences that were compared.
        same, redrawn: Draws that were drawn again as they are stored, of how many.
        same_positions: Positions of which all were.
        same_by_chance: Of `redrawn`, what a replicate has in common with what is stored.
        shifted: Mean of -log q of stored draws at the position before, their own and the one
            behind, in nats; over those positions that have both neighbours in their chunk.
    """

    num_positions = 0

    def __init__(
        self,
        cache: Cache,
        chosen: npt.NDArray[np.int64],
        parts: Sequence[DrawPart],
        replicate_seed: int,
    ) -> None:
        self._cache = cache
        self._chosen = set(chosen.tolist())
        self._parts = parts
        positions = int(cache.sequence_lengths[chosen].sum())
        count = max(_LEAST_REPLICATES, -(-_REPLICATED_POSITIONS // max(1, positions)))
        self._seeds = np.random.SeedSequence(replicate_seed).generate_state(count, np.uint64)
        self._fingerprints = cache.fingerprints
        self.statistics = DrawStatistics(cache.config.rounds, count)
        self.seen: set[int] = set()
        self.unknown: list[int] = []
        self.other_tokens: list[int] = []
        self.empty = self.same_positions = 0
        self.same = self.redrawn = self.same_by_chance = 0.0
        self._shifted = np.zeros(3)
        self._shifted_draws = 0.0

    @property
    def shifted(self) -> tuple[float, float, float] | None:
        if self._shifted_draws == 0:
            return None
        before, own, behind = (self._shifted / self._shifted_draws).tolist()
        return before, own, behind

    def holds(self, window: Window) -> bool:
        """Whether the window is not to be compared; notes what is wrong with it."""
        if window.sequence_id not in self._cache:
            self.unknown.append(window.index)
            return True
        index = self._cache.index_of(window.sequence_id)
        if int(self._fingerprints[index]) != fingerprint_tokens(window.tokens):
            self.other_tokens.append(window.index)
            self.seen.add(index)
            return True
        if index not in self._chosen:
            return True
        self.seen.add(index)
        return False

    def add(self, rows: TeacherRows) -> None:
        indices = np.array([self._cache.index_of(int(i)) for i in rows.sequence_ids], np.int64)
        stored = self._cache.read_positions(self._cache.sequence_starts[indices] + rows.positions)
        lengths = np.diff(stored.offsets)
        filled = np.flatnonzero(lengths)
        self.empty += len(lengths) - len(filled)
        if not len(filled):
            return
        logits = rows.logits
        if logits.device.type in SAMPLES_IN_CPU_MEMORY:
            logits = logits.cpu()
        logits = logits[torch.from_numpy(filled).to(logits.device)]
        keys = np.stack([rows.sequence_ids, rows.positions.astype(np.uint64)], 1)[filled]
        config = self._cache.config
        facts = RowFacts(logits, config.temperature, config.proposal_temperature)
        offsets = np.concatenate([[0], np.cumsum(lengths[filled])])
        columns = (offsets, stored.token_ids, self._values(stored.counts, stored.weights))
        entries = Entries.of(*(torch.as_tensor(c, device=logits.device) for c in columns))
        judged = facts.judge(entries)
        # A sum of caches is a sample of all their rounds, so it has replicates as any other.
        others = [DrawPart(config.rounds, int(seed), 0.0) for seed in self._seeds]
        replicates = [self._draw(facts, logits, keys, other) for other in others]
        self.statistics.add(facts, judged, replicates)
        if self._parts:
            again = [self._draw(facts, logits, keys, part) for part in self._parts]
            self.redrawn += config.rounds * len(filled)
            common = _common(judged, again, len(filled))
            self.same += float(common.sum())
            self.same_positions += int((common > config.rounds - 0.5).sum())
            self.same_by_chance += float(_common(judged, replicates[:1], len(filled)).sum())
        self._compare_neighbours(facts, entries, rows, filled)

    def finish(self, windows: Sequence[Window]) -> None:
        """Nothing is kept for a batch."""

    def flush(self) -> None:
        """Nothing is written."""

    def _draw(self, facts: RowFacts, logits: torch.Tensor, keys: Any, part: DrawPart) -> Judged:
        config = self._cache.config
        draws = sample(
            for_sampling(logits),
            rounds=part.rounds,
            sampler=config.sampler,
            temperature=config.temperature,
            proposal_temperature=config.proposal_temperature,
            seed=part.seed,
            position_keys=keys,
            offset=part.offset,
        )
        columns = (draws.offsets, draws.token_ids, self._values(draws.counts, draws.weights))
        return facts.judge(Entries.of(*(torch.as_tensor(c, device=logits.device) for c in columns)))

    def _values(self, counts: Any, weights: Any) -> Any:
        """What `Entries` holds: counts, or importance weights times rounds."""
        if self._cache.config.value_kind == "weights":
            return weights * self._cache.config.rounds
        return counts if isinstance(counts, torch.Tensor) else counts.astype(np.int64)

    def _compare_neighbours(
        self, facts: RowFacts, entries: Entries, rows: TeacherRows, filled: npt.NDArray[np.int64]
    ) -> None:
        ids, positions = rows.sequence_ids[filled], rows.positions[filled]
        follows = (ids[1:] == ids[:-1]) & (positions[1:] == positions[:-1] + 1)
        inner = np.zeros(len(filled), np.bool_)
        inner[1:-1] = follows[1:] & follows[:-1]
        keep = torch.from_numpy(inner).to(entries.rows.device)[entries.rows]
        some = Entries(entries.rows[keep], entries.token_ids[keep], entries.values[keep])
        if not len(some.rows):
            return
        counts = facts.judge(some).counts
        surprise = [-facts.judge(some, shift).log_q for shift in (-1, 0, 1)]
        usable = torch.isfinite(torch.stack(surprise)).all(0)
        self._shifted += [float((counts * s)[usable].sum()) for s in surprise]
        self._shifted_draws += float(counts[usable].sum())


def _common(stored: Judged, parts: Sequence[Judged], num_rows: int) -> torch.Tensor:
    """(R,) float64: how many draws the stored ones and those of all parts have in common."""
    drawn = torch.cat([part.keys for part in parts])
    keys: torch.Tensor
    place: torch.Tensor
    keys, place = torch.unique(drawn, return_inverse=True)
    # Counts that come from weights carry their rounding.
    counts = torch.cat([part.counts for part in parts]).round()
    counts = counts.new_zeros(len(keys)).index_add_(0, place, counts)
    nearest = torch.searchsorted(keys, stored.keys).clamp(max=len(keys) - 1)
    overlap = torch.minimum(stored.counts.round(), counts[nearest]) * (keys[nearest] == stored.keys)
    return overlap.new_zeros(num_rows).index_add_(0, stored.rows, overlap)
