"""How draws travel from a worker to the client: one int32 vector a request.

The engine carries a tensor from each request's last prompt step to its RequestOutput without
looking inside: `[MAGIC, kind, low and high word of sequence_id, positions, entries]`, the number
of entries of each position, all token ids, all values: counts, or the bits of float32 weights. A
failure travels as `[MAGIC, FAILURE, bytes]` and UTF-8 text: an exception would end the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError

_MAGIC = 0x534C4431  # "SLD1": the 1 is the version of this layout
_COUNTS, _WEIGHTS, _FAILURE = 0, 1, 2
_HEADER = 6
Words = npt.NDArray[np.int32]


@dataclass(frozen=True)
class WindowDraws:
    """The draws of the captured positions of one window, in their order.

    Attributes:
        sequence_id: Of the window.
        lengths: (P,) int64: entries of each captured position.
        token_ids: (E,) int32.
        counts: (E,) uint16, or None where there are weights.
        weights: (E,) float32, or None where there are counts.
    """

    sequence_id: int
    lengths: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    counts: npt.NDArray[np.uint16] | None
    weights: npt.NDArray[np.float32] | None


def pack(draws: WindowDraws) -> Words:
    """One vector of int32."""
    if draws.counts is not None:
        kind, values = _COUNTS, draws.counts.astype(np.int32)
    else:
        assert draws.weights is not None
        kind, values = _WEIGHTS, draws.weights.view(np.int32)
    identity = np.array([draws.sequence_id], "<u8").view("<i4")
    sizes = [len(draws.lengths), len(draws.token_ids)]
    header = np.concatenate([[_MAGIC, kind], identity, sizes])
    return np.concatenate([header, draws.lengths, draws.token_ids, values]).astype(np.int32)


def pack_failure(message: str) -> Words:
    """The same for a request that failed."""
    text = message.encode()
    padded = text + bytes(-len(text) % 4)
    return np.concatenate([[_MAGIC, _FAILURE, len(text)], np.frombuffer(padded, "<i4")]).astype(
        np.int32
    )


def unpack(words: Any) -> WindowDraws:
    """The inverse of both.

    Raises:
        InvalidArgumentError: The worker failed (its message), or this is no vector of ours.
    """
    if not _is_ours(words):
        raise InvalidArgumentError(
            f"the engine returned {_describe(words)} instead of draws: its workers run without "
            "the plugin, or with that of another sparselogits"
        )
    if words[1] == _FAILURE:
        raise InvalidArgumentError(words[3:].astype("<i4").tobytes()[: words[2]].decode())
    kind, (positions, entries) = words[1], words[4:_HEADER].tolist()
    ids_start = _HEADER + positions
    values_start = ids_start + entries
    if len(words) != values_start + entries or int(words[_HEADER:ids_start].sum()) != entries:
        raise InvalidArgumentError(
            f"the engine returned {len(words)} words for {positions} positions and {entries} "
            "entries: the draws were cut on their way"
        )
    values = words[values_start:]
    return WindowDraws(
        sequence_id=int(words[2:4].astype("<i4").view("<u8")[0]),
        lengths=words[_HEADER:ids_start].astype(np.int64),
        token_ids=words[ids_start:values_start],
        counts=values.astype(np.uint16) if kind == _COUNTS else None,
        weights=values.view(np.float32) if kind == _WEIGHTS else None,
    )


def _is_ours(words: Any) -> bool:
    if not isinstance(words, np.ndarray) or words.dtype != np.int32 or words.ndim != 1:
        return False
    if len(words) < 3 or words[0] != _MAGIC or words[1] not in (_COUNTS, _WEIGHTS, _FAILURE):
        return False
    return bool(words[1] == _FAILURE or len(words) >= _HEADER)


def _describe(words: Any) -> str:
    if isinstance(words, np.ndarray):
        return f"an array of {words.dtype} with shape {words.shape}"
    return "nothing" if words is None else f"a {type(words).__name__}"
