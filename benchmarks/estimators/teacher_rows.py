"""Rows of a teacher in two regimes: as they are, and sharpened like those of the paper's teacher.

`flat`: softmax at temperature 1. `sharp`: the 128 most likely tokens at the temperature that gives
the paper's 12.1 unique ids per position at 50 i.i.d. draws; a 135M teacher is flatter than its 8B.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from estimators.blocks import Block, Floats, Ids, softmax

KEPT = 128
PAPER_IDS, PAPER_ROUNDS = 12.1, 50


@dataclass(frozen=True)
class Regime:
    """Attributes:
    name: "flat" or "sharp".
    logits: (P, C) float32, perhaps a memory map.
    token_ids: (P, C) of the columns, or None.
    labels: (P,).
    temperature: Which `logits` are divided by already.
    """

    name: str
    logits: npt.NDArray[np.float32]
    token_ids: Ids | None
    labels: Ids
    temperature: float

    @property
    def num_rows(self) -> int:
        return len(self.logits)

    def block(self, start: int, stop: int) -> Block:
        """Rows start to stop, or to the last one."""
        logits = np.array(self.logits[start:stop])
        ids = None if self.token_ids is None else self.token_ids[start:stop]
        return Block(softmax(logits), logits, ids, self.labels[start:stop], start)

    def spread(self, count: int) -> Block:
        """About `count` rows at equal distances."""
        rows = slice(None, None, max(1, self.num_rows // count))
        logits = np.array(self.logits[rows])
        ids = None if self.token_ids is None else self.token_ids[rows]
        return Block(softmax(logits), logits, ids, self.labels[rows], 0)

    def blocks(self, size: int) -> Any:
        """All rows, `size` at a time."""
        return (self.block(start, start + size) for start in range(0, self.num_rows, size))


@torch.inference_mode()
def teacher_logits(model: Any, input_ids: torch.Tensor, path: Path) -> npt.NDArray[np.float32]:
    """(N·S, V) logits of (N, S) windows in a memory map, two windows at a time."""
    windows, length = input_ids.shape
    vocab_size = model.get_output_embeddings().weight.shape[0]
    logits = np.lib.format.open_memmap(path, "w+", np.float32, (windows * length, vocab_size))
    for start in range(0, windows, 2):
        rows = model(input_ids[start : start + 2]).logits.flatten(0, 1)
        logits[start * length : start * length + len(rows)] = rows.float().numpy()
    return logits


def flat(logits: npt.NDArray[np.float32], labels: Ids) -> Regime:
    return Regime("flat", logits, None, labels, 1.0)


def sharp(logits: npt.NDArray[np.float32], labels: Ids) -> Regime:
    kept = min(KEPT, logits.shape[1])
    ids = np.empty((len(logits), kept), np.int64)
    values = np.empty((len(logits), kept), np.float32)
    for start in range(0, len(logits), 256):
        rows = np.array(logits[start : start + 256])
        top = np.sort(np.argpartition(rows, -kept, axis=1)[:, -kept:], axis=1)
        ids[start : start + 256] = top
        values[start : start + 256] = np.take_along_axis(rows, top, axis=1)
    temperature = _temperature_of_the_paper(values)
    return Regime("sharp", values / np.float32(temperature), ids, labels, temperature)


def _temperature_of_the_paper(logits: npt.NDArray[np.float32]) -> float:
    low, high = 0.02, 4.0
    for _ in range(40):
        middle = (low * high) ** 0.5
        if _unique_ids(softmax(logits / np.float32(middle))) < PAPER_IDS:
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _unique_ids(p: Floats) -> float:
    return float((1 - (1 - p) ** PAPER_ROUNDS).sum(axis=1).mean())
