"""What users give as windows, masks and ids, checked one piece at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import CacheIOError, InvalidArgumentError


def load(source: Any, name: str) -> Any:
    """Opens a path, takes tensors as arrays, and checks the shape of what is an array."""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            source = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise CacheIOError(f"{name}: cannot read {path}: {error}") from error
        except (ValueError, EOFError) as error:
            raise InvalidArgumentError(f"{name}: {path} is not a .npy array: {error}") from error
        if not isinstance(source, np.ndarray):
            raise InvalidArgumentError(f"{name}: {path} is an archive, not one .npy array")
    elif hasattr(source, "__array__"):
        source = np.asarray(source)
    if isinstance(source, np.ndarray):
        if source.ndim != 2:
            raise InvalidArgumentError(
                f"{name} must be an (N, S) array, got shape {source.shape}; a flat stream of "
                "tokens has to be cut into windows first: sl.tokens.pack"
            )
        kinds = "b" if name == "targets_mask" else "iu"
        if source.dtype.kind not in kinds:
            wanted = "bool" if name == "targets_mask" else "integers"
            raise InvalidArgumentError(f"{name} must hold {wanted}, got dtype {source.dtype}")
    elif not isinstance(source, Iterable):
        raise InvalidArgumentError(f"{name} must be an array, a path or an iterable of 1-D arrays")
    return source


def tokens_of(raw: Any, index: int) -> npt.NDArray[np.int64]:
    """One window's ids."""
    tokens = np.asarray(raw)
    if tokens.ndim != 1:
        raise InvalidArgumentError(f"window {index} must be 1-D, got shape {tokens.shape}")
    if tokens.size == 0:  # an empty Python list has no integer dtype to show
        return np.empty(0, np.int64)
    if tokens.dtype.kind not in "iu":
        raise InvalidArgumentError(f"window {index} must hold integers, got dtype {tokens.dtype}")
    if tokens.dtype == np.uint64 and int(tokens.max()) > np.iinfo(np.int64).max:
        raise InvalidArgumentError(f"window {index} has token id {tokens.max()}")
    return tokens.astype(np.int64)


def captured_of(raw: Any, length: int, index: int) -> npt.NDArray[np.bool_]:
    """One window's mask."""
    mask = np.asarray(raw)
    if mask.shape != (length,):
        raise InvalidArgumentError(
            f"targets_mask of window {index} has shape {mask.shape}, the window has {length} tokens"
        )
    if mask.size and mask.dtype != np.bool_:
        raise InvalidArgumentError(
            f"targets_mask of window {index} must be bool, got dtype {mask.dtype}"
        )
    return mask.astype(np.bool_)


def sequence_ids_of(raw: Iterable[int]) -> npt.NDArray[np.uint64]:
    """The ids of all windows, distinct."""
    values = [int(value) for value in _checked_integers(raw)]
    for value in values:
        if not 0 <= value < 2**64:
            raise InvalidArgumentError(f"sequence_id {value} is outside [0, 2^64)")
    ids = np.array(values, np.uint64)
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise InvalidArgumentError(f"sequence_id {unique[counts.argmax()]} occurs more than once")
    return ids


def check_count(name: str, count: int, num_windows: int) -> None:
    """Holds the length of ids or masks against that of the windows."""
    if count != num_windows:
        raise InvalidArgumentError(f"{name} has {count} items for {num_windows} windows")


def _checked_integers(raw: Iterable[int]) -> Iterator[int]:
    for value in raw:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise InvalidArgumentError(f"sequence_ids must be integers, got {value!r}")
        yield int(value)
