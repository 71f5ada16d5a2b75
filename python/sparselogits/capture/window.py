"""One token window, as everything in a capture passes it on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Window:
    """One token window, checked.

    Attributes:
        index: Its place in the source, for error messages.
        sequence_id: Its stable identity in the cache and in the keys of the draws.
        tokens: The input ids, (S,) int64.
        captured: The positions to capture, (S,) bool.
        document_starts: Positions at which a document starts, ascending, the first one 0; the
            teacher does not attend across them, and position ids restart there. None: the window
            is one document.
    """

    index: int
    sequence_id: int
    tokens: npt.NDArray[np.int64]
    captured: npt.NDArray[np.bool_]
    document_starts: npt.NDArray[np.int64] | None = None
