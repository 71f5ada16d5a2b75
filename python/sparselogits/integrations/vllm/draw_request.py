"""What a prompt carries to the engine's workers: which draws it wants, at which positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.checks import integer
from sparselogits.errors import InvalidArgumentError
from sparselogits.limits import MAX_VOCAB_SIZE
from sparselogits.sampling import sample

#: The key in `SamplingParams.extra_args` that makes a request ours.
EXTRA_ARGS_KEY = "sparselogits"
#: The most rows of logits that a request may ask a worker to hold at a time.
MAX_CHUNK_ROWS = 4096
_KEYS = {"sequence_id", "vocab_size", "num_positions", "captured", "chunk_rows", "sample"}


@dataclass(frozen=True)
class DrawRequest:
    """The wish of one window.

    Attributes:
        sequence_id: Of the window; with the position it keys the draws.
        vocab_size: Columns of the logits that are tokens; the others are cut.
        captured: (S,) bool: the positions to draw at.
        chunk_rows: Rows of logits that exist at a time.
        sample: Keyword arguments for `sl.sample`, the seed among them.
    """

    sequence_id: int
    vocab_size: int
    captured: npt.NDArray[np.bool_]
    chunk_rows: int
    sample: dict[str, Any]

    def to_extra_args(self) -> dict[str, Any]:
        """For `SamplingParams(extra_args=...)`: integers, strings, floats and bytes only."""
        return {
            EXTRA_ARGS_KEY: {
                "sequence_id": self.sequence_id,
                "vocab_size": self.vocab_size,
                "num_positions": len(self.captured),
                "captured": np.packbits(self.captured).tobytes(),
                "chunk_rows": self.chunk_rows,
                "sample": dict(self.sample),
            }
        }

    @classmethod
    def from_extra_args(cls, extra_args: Mapping[str, Any] | None) -> DrawRequest | None:
        """The inverse; None where the request is not ours.

        Raises:
            InvalidArgumentError: It is ours and wrong: whoever can send requests can send this.
        """
        if not extra_args or EXTRA_ARGS_KEY not in extra_args:
            return None
        given = extra_args[EXTRA_ARGS_KEY]
        if not isinstance(given, Mapping) or set(given) != _KEYS:
            raise InvalidArgumentError(
                f"extra_args[{EXTRA_ARGS_KEY!r}] must have the keys {sorted(_KEYS)}, got {given!r}"
            )
        num_positions = integer("num_positions", given["num_positions"], 0, 1 << 32)
        bits, options = given["captured"], given["sample"]
        if not isinstance(bits, bytes) or len(bits) != (num_positions + 7) // 8:
            raise InvalidArgumentError(f"captured must be {(num_positions + 7) // 8} bytes")
        check_options(options)
        return cls(
            sequence_id=integer("sequence_id", given["sequence_id"], 0, (1 << 64) - 1),
            vocab_size=integer("vocab_size", given["vocab_size"], 1, MAX_VOCAB_SIZE),
            captured=np.unpackbits(np.frombuffer(bits, np.uint8), count=num_positions).astype(
                np.bool_
            ),
            chunk_rows=integer("chunk_rows", given["chunk_rows"], 1, MAX_CHUNK_ROWS),
            sample=dict(options),
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Checks keyword arguments for `sl.sample`.

    Raises:
        InvalidArgumentError: One of them is unknown or out of range.
    """
    try:
        sample(np.zeros((0, 1), np.float32), **options)  # no rows: only the options are looked at
    except TypeError as error:
        raise InvalidArgumentError(f"sample must be keywords of sl.sample: {error}") from None
