"""What others store: targets whose mean is not p, and self-normalised importance weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from estimators.blocks import Block, Floats, Target, most_likely
from estimators.unbiased import REAL_BITS, Importance, make_target, sampled


@dataclass(frozen=True)
class TopK:
    """The K most likely tokens.

    Attributes:
        rest: Where the missing mass goes. "renormalised": up-scales the tokens kept. "label": to
            the text's next token (the paper's naive fix). "ghost": to one more class, "none of
            those kept", whose probability the student gives too (`gradients.py`).
    """

    rest: str
    name: str
    size_name: str = "K"

    def columns(self, block: Block, size: float) -> tuple[np.ndarray, np.ndarray]:
        keep = min(int(size), block.p.shape[1])
        columns = np.sort(most_likely(block.p, keep), axis=1)
        return columns, np.take_along_axis(block.p, columns, axis=1)

    def draw(self, block: Block, size: float, seed: int) -> Target:
        columns, p = self.columns(block, size)
        rows = np.repeat(np.arange(len(p)), p.shape[1])
        if self.rest == "renormalised":
            p = p / p.sum(axis=1, keepdims=True)
        elif self.rest == "label":
            return self._with_labels(block, columns, p)
        return make_target(block, rows, columns.reshape(-1), p.reshape(-1), p.shape[1] * REAL_BITS)

    def _with_labels(self, block: Block, columns: np.ndarray, p: Floats) -> Target:
        """Labels are token ids, of which a sharpened row may have no column: column -1 then."""
        ids = block.ids_of(np.arange(len(p))[:, None], columns)
        held = ids == block.labels[:, None]
        missing = 1 - p.sum(axis=1)
        weights = np.concatenate(
            [p + held * missing[:, None], np.where(held.any(axis=1), 0.0, missing)[:, None]], axis=1
        )
        ids = np.concatenate([ids, block.labels[:, None]], axis=1)
        columns = np.concatenate([columns, _columns_of_labels(block)[:, None]], axis=1)
        rows, places = np.nonzero(weights)
        return Target(
            rows,
            columns[rows, places],
            ids[rows, places],
            weights[rows, places],
            len(p),
            p.shape[1] * REAL_BITS,
        )


def _columns_of_labels(block: Block) -> np.ndarray:
    if block.token_ids is None:
        return block.labels
    held = block.token_ids == block.labels[:, None]
    return np.where(held.any(axis=1), held.argmax(axis=1), -1)


@dataclass(frozen=True)
class SelfNormalised(Importance):
    """Importance weights divided by their sum in each row: biased by O(1/N)."""

    def draw(self, block: Block, size: float, seed: int) -> Target:
        return sampled(block, "multinomial", int(size), seed, self.exponent, self_normalize=True)

    def chi_square(self, block: Block, size: float, seed: int) -> float:
        """E Σ w²/p - 1, the last of the draws integrated out: a plain mean has no finite error bar.

        Draws are alike, so E Σ w²/p is N times the expectation of what one of them adds.
        """
        before = sampled(block, "multinomial", int(size) - 1, seed, self.exponent)
        p, q = block.p, self.proposal(block.p)
        ratio = np.divide(p, q, out=np.zeros_like(p), where=q > 0)
        sums = np.bincount(before.rows, before.weights, len(p)) * (int(size) - 1)
        mine = ratio / (ratio + sums[:, None])
        held = np.zeros_like(p)
        held[before.rows, before.columns] = np.rint(
            before.weights * (int(size) - 1) / ratio[before.rows, before.columns]
        )
        terms = np.divide(q * (held + 1) * mine**2, p, out=np.zeros_like(p), where=p > 0)
        return float(size * terms.sum(axis=1).mean() - 1)
