"""Sparse, unbiased caches of teacher logits: write once, read at random, train from them.

Position t of a cache holds the teacher's distribution of token t+1 given tokens ≤ t. What needs
torch lives in `sparselogits.torch` and `sparselogits.capture` and is imported only there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparselogits.alignment import check_alignment
from sparselogits.codec_model import CodecModel
from sparselogits.config import CacheConfig
from sparselogits.distributed.worker import capture_distributed
from sparselogits.errors import (
    CacheIOError,
    CorruptionError,
    FingerprintMismatchError,
    FormatError,
    InvalidArgumentError,
    MismatchError,
    SequenceNotFoundError,
    SparseLogitsError,
    TruncatedError,
    UnsupportedError,
    VocabularyMismatchError,
)
from sparselogits.fault import Fault
from sparselogits.fingerprint import fingerprint_tokenizer, fingerprint_tokens
from sparselogits.merge import MergeReport, merge
from sparselogits.model_training import train_model
from sparselogits.reader import Cache, open
from sparselogits.recover import RecoverReport, recover
from sparselogits.repack import RepackReport, repack
from sparselogits.rounds import RoundsCurve, RoundsSuggestion, suggest_rounds
from sparselogits.sampling import Draws, sample
from sparselogits.sparse import SparseLogits
from sparselogits.tokenizer_check import check_tokenizer
from sparselogits.verify import VerifyReport, verify
from sparselogits.writer import CacheWriter

if TYPE_CHECKING:
    from sparselogits import tokens
    from sparselogits.capture import capture, check_capture

    __version__: str

__all__ = [
    "Cache",
    "CacheConfig",
    "CacheIOError",
    "CacheWriter",
    "CodecModel",
    "CorruptionError",
    "Draws",
    "Fault",
    "FingerprintMismatchError",
    "FormatError",
    "InvalidArgumentError",
    "MergeReport",
    "MismatchError",
    "RecoverReport",
    "RepackReport",
    "RoundsCurve",
    "RoundsSuggestion",
    "SequenceNotFoundError",
    "SparseLogits",
    "SparseLogitsError",
    "TruncatedError",
    "UnsupportedError",
    "VerifyReport",
    "VocabularyMismatchError",
    "capture",
    "capture_distributed",
    "check_alignment",
    "check_capture",
    "check_tokenizer",
    "fingerprint_tokenizer",
    "fingerprint_tokens",
    "merge",
    "open",
    "recover",
    "repack",
    "sample",
    "suggest_rounds",
    "tokens",
    "train_model",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Imports what is slow or needs torch only when it is asked for."""
    if name in ("capture", "tokens"):  # subpackages; the first can be called like a function
        from importlib import import_module

        return import_module(f"sparselogits.{name}")
    if name == "check_capture":
        from sparselogits.capture.check import check_capture

        return check_capture
    if name == "__version__":
        from importlib.metadata import version

        return version("sparselogits")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
