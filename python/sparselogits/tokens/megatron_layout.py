"""The layout of Megatron-LM's indexed datasets: a `.bin` of tokens and an `.idx` that cuts it.

The `.idx` is little-endian: 9 bytes of magic, version (u64), dtype code (u8), number of sequences
(u64), number of document indices (u64); then sequence lengths in tokens (i32 each), pointers into
the `.bin` in bytes (i64 each), and document indices (i64 each): document d is the sequences from
index d to index d + 1, so there is one index more than documents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER_BYTES = 34
VERSION_OFFSET, DTYPE_OFFSET, SEQUENCES_OFFSET, DOCUMENTS_OFFSET = 9, 17, 18, 26
LENGTH_BYTES, POINTER_BYTES, DOCUMENT_BYTES = 4, 8, 8

#: Codes of the dtypes that can hold token ids. There is none of uint32.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("i1"),
    3: np.dtype("<i2"),
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    8: np.dtype("<u2"),
}
#: Codes of the layout that cannot.
OTHER_DTYPES = {6: "float64", 7: "float32"}

_SUFFIXES = (".bin", ".idx")


def pair_of(path: str | Path) -> tuple[Path, Path]:
    """The `.bin` and the `.idx` of a dataset, given either of them or their common prefix."""
    text = str(path)
    prefix = text[: -len(_SUFFIXES[0])] if text.endswith(_SUFFIXES) else text
    return Path(prefix + ".bin"), Path(prefix + ".idx")


def is_pair(path: str | Path) -> bool:
    """Whether there is an `.idx` beside what `path` names: Megatron's, not a raw `.bin`."""
    return pair_of(path)[1].exists()
