"""The layout that MDS shards and litdata chunks share."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from adapters.base import Range


def item_ranges(file: Path) -> list[Range]:
    """The records of a file that starts with their number n and n + 1 offsets, all u32."""
    data = file.read_bytes()
    number = int(np.frombuffer(data, "<u4", 1)[0])
    offsets = np.frombuffer(data, "<u4", number + 1, 4).tolist()
    return list(itertools.pairwise(offsets))
