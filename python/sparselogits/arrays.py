"""Conversions of a caller's arrays that refuse whatever would have to be guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError


def integer_array(name: str, values: Any) -> npt.NDArray[np.int64]:
    """(n,) int64, contiguous, of an integer array, list or torch CPU tensor.

    Raises:
        InvalidArgumentError: Not one-dimensional; floats, bools or objects; above int64.
    """
    array = _one_dimension(name, values)
    if array.size == 0 and not isinstance(values, np.ndarray) and array.dtype == np.float64:
        array = array.astype(np.int64)  # NumPy makes [] a float64 array
    if array.dtype.kind not in "iu":
        raise InvalidArgumentError(f"{name} must be integers, got dtype {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and array.size:
        largest = array.max()
        if largest > np.iinfo(np.int64).max:
            raise InvalidArgumentError(f"{name} must be below 2^63, got {largest}")
    return np.ascontiguousarray(array, np.int64)


def unsigned_array(name: str, values: Any) -> npt.NDArray[np.uint64]:
    """(n,) uint64, contiguous: as `integer_array`, but 0 to 2^64 - 1."""
    array = _one_dimension(name, values)
    if array.dtype == np.uint64:
        return np.ascontiguousarray(array)
    if array.dtype == object:  # Python integers above 2^63 - 1 beside others
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in array):
            raise InvalidArgumentError(f"{name} must be integers, got dtype {array.dtype}")
        wrong = next((value for value in array if not 0 <= value < 1 << 64), None)
        if wrong is not None:
            raise InvalidArgumentError(f"{name} must be from 0 to 2^64 - 1, got {wrong}")
        return np.array(array.tolist(), np.uint64)
    if array.dtype == np.float64 and isinstance(values, (list, tuple)) and array.size:
        # NumPy makes a list with integers on both sides of 2^63 floats, and rounds them.
        return unsigned_array(name, np.array(values, object))
    signed = integer_array(name, values)
    if signed.size and signed.min() < 0:
        raise InvalidArgumentError(f"{name} must be from 0 to 2^64 - 1, got {signed.min()}")
    return signed.astype(np.uint64)


def weight_array(name: str, values: Any) -> npt.NDArray[np.float32]:
    """(n,) float32, contiguous, of a float32 or float64 array; a double is rounded.

    Raises:
        InvalidArgumentError: Not one-dimensional; another dtype; finite as a double but infinite
            as a float32.
    """
    array = _one_dimension(name, values)
    if array.dtype not in (np.float32, np.float64):
        raise InvalidArgumentError(f"{name} must be float32 or float64, got dtype {array.dtype}")
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, np.float32)
    if array.dtype == np.float64:
        overflowed = np.flatnonzero(np.isinf(single) & np.isfinite(array))
        if overflowed.size:
            value = array[overflowed[0]]
            raise InvalidArgumentError(f"{name} must fit a float32, got {value!r}")
    return single


def _one_dimension(name: str, values: Any) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, CUDA tensors
        raise InvalidArgumentError(f"{name} is no array in host memory: {error}") from error
    if array.ndim != 1:
        raise InvalidArgumentError(f"{name} must have one dimension, got shape {array.shape}")
    return array
