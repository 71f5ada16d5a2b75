"""`--sequence-ids FILE.npy`: the ids of given windows."""

from __future__ import annotations

from sparselogits.errors import InvalidArgumentError


def load_sequence_ids(path: str | None) -> list[int] | None:
    """The ids in a `.npy`; None without one.

    Raises:
        InvalidArgumentError: It is no 1-D array of integers.
        OSError: It cannot be read.
    """
    import numpy as np

    if path is None:
        return None
    try:
        ids = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise InvalidArgumentError(f"--sequence-ids {path}: {error}") from error
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise InvalidArgumentError(f"--sequence-ids {path} must hold one 1-D array of integers")
    return [int(value) for value in ids]
