"""A causal model small enough to say what every logit is, and exact: all of it are small integers.

So logits do not depend on how many rows the head gets at a time, and the tests compare draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

VOCABULARY = 11
PADDED = 13


class ToyModel:
    """Row t of `hidden` counts the tokens up to t, and marks token t."""

    rows = PADDED  # as many as vLLM says that the vocabulary has

    def __init__(self) -> None:
        weights = np.random.default_rng(5).integers(-8, 9, (PADDED, 2 * PADDED)) / 8
        weights[VOCABULARY:] = 50.0  # would win every draw
        self._head = torch.from_numpy(weights.astype(np.float32))
        self.head_calls: list[int] = []

    def hidden(self, tokens: Sequence[int]) -> torch.Tensor:
        marks = torch.nn.functional.one_hot(torch.tensor(tokens), PADDED)
        return torch.cat([marks.cumsum(0), marks], 1).float()

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        self.head_calls.append(len(hidden))
        return hidden @ self._head.T

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """(S, VOCABULARY) float32: what a teacher gives for the whole window at once."""
        return (self.hidden(tokens) @ self._head.T)[:, :VOCABULARY].numpy()
