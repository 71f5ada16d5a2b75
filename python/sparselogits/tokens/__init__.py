"""Corpora of token ids, and how they become windows for a teacher.

`open_tokens` opens a corpus, whatever its format; `pack` cuts it into windows for `sl.capture`.
Reading Parquet and datasets needs pyarrow, `sparselogits[tokens]`.
"""

from __future__ import annotations

from sparselogits.capture.given_windows import GivenWindows
from sparselogits.capture.window_set import WindowSet
from sparselogits.tokens.documents import TokenDocuments
from sparselogits.tokens.megatron_writer import MegatronWriter
from sparselogits.tokens.opening import open_rows, open_tokens
from sparselogits.tokens.packed_windows import PackedWindows, pack
from sparselogits.tokens.tokenize import tokenize

__all__ = [
    "GivenWindows",
    "MegatronWriter",
    "PackedWindows",
    "TokenDocuments",
    "WindowSet",
    "open_rows",
    "open_tokens",
    "pack",
    "tokenize",
]
