"""`WindowParts`: the windows of a capture as contiguous parts, and their identity."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import unsigned_array
from sparselogits.errors import (
    CacheIOError,
    FingerprintMismatchError,
    InvalidArgumentError,
    MismatchError,
)
from sparselogits.fingerprint import fingerprint_tokens
from sparselogits.id_set import first_repeated
from sparselogits.reader import Cache


class WindowParts:
    """Windows that any worker can take any range of.

    Args:
        windows: As `sparselogits.capture` takes them, with a length: an (N, S) array, the path of
            a `.npy`, a list of 1-D arrays, or a window set: an object with `select(range)`,
            `content_digest()` and windows that have `tokens` and `sequence_id`.
        sequence_ids: One id a window; default: its index, or the object's own.
        targets_mask: The layout of `windows`, bool, or None.

    Raises:
        InvalidArgumentError: Windows have no length; other arguments have another one; an id
            repeats.
        CacheIOError: A file cannot be read.
    """

    def __init__(self, windows: Any, sequence_ids: Any = None, targets_mask: Any = None) -> None:
        self._windows = _opened("windows", windows)
        self._ids = None if sequence_ids is None else unsigned_array("sequence_ids", sequence_ids)
        self._mask = None if targets_mask is None else _opened("targets_mask", targets_mask)
        for name, other in (("sequence_ids", self._ids), ("targets_mask", self._mask)):
            if other is not None and len(other) != len(self):
                raise InvalidArgumentError(f"{name} has {len(other)} items for {len(self)} windows")
        if self._ids is not None:
            repeated = first_repeated(np.sort(self._ids))
            if repeated is not None:
                raise InvalidArgumentError(f"sequence_id {repeated} occurs more than once")

    def __len__(self) -> int:
        return len(self._windows)

    def arguments(self, part: range) -> dict[str, Any]:
        """What `capture` is given for these windows: they keep the ids that the whole gave them."""
        cut = slice(part.start, part.stop)
        arguments: dict[str, Any] = {}
        if self._is_set:
            arguments["windows"] = self._windows.select(part)
        else:
            arguments["windows"] = self._windows[cut]
            arguments["sequence_ids"] = part
        if self._ids is not None:
            arguments["sequence_ids"] = self._ids[cut]
        if self._mask is not None:
            arguments["targets_mask"] = self._mask[cut]
        return arguments

    def tokens(self, part: range) -> list[npt.NDArray[Any]]:
        """The token ids of these windows, 1-D integers each."""
        return [self._window(index)[1] for index in part]

    def digest(self) -> str:
        """32 hex digits of the tokens, ids and mask: one pass over the windows, or what a window
        set says of itself."""
        digest = hashlib.blake2b(digest_size=16)
        if self._is_set:
            digest.update(self._windows.content_digest().encode())
            digest.update(b"" if self._ids is None else self._ids.astype("<u8").tobytes())
        else:
            for sequence_id, fingerprint in self._identities():
                digest.update(np.array([sequence_id, fingerprint], "<u8").tobytes())
        if self._mask is not None:
            for row in self._mask:
                digest.update(np.packbits(np.asarray(row, np.bool_)).tobytes())
        return digest.hexdigest()

    def check_held(self, cache: Cache) -> None:
        """Refuses a finished cache of other windows; one pass over them.

        Raises:
            MismatchError: It has another number of windows, or other ids.
            FingerprintMismatchError: It has other tokens; names the first window.
        """
        if len(cache) != len(self):
            raise MismatchError(
                f"{cache.path} is a finished cache of {len(cache)} windows, not {len(self)}: "
                "capture further ones into a cache of their own and merge the two"
            )
        held = zip(cache.sequence_ids.tolist(), cache.fingerprints.tolist(), strict=True)
        for index, (here, there) in enumerate(zip(self._identities(), held, strict=True)):
            if here[0] != there[0]:
                raise MismatchError(
                    f"{cache.path} is finished and its sequence {index} has sequence_id "
                    f"{there[0]}, not {here[0]}"
                )
            if here[1] != there[1]:
                raise FingerprintMismatchError(
                    f"window {index}: the finished cache at {cache.path} holds sequence_id "
                    f"{here[0]} with other tokens"
                )

    @property
    def _is_set(self) -> bool:
        # A tensor has a `select` too, of another meaning.
        return hasattr(type(self._windows), "content_digest")

    def _window(self, index: int) -> tuple[int, npt.NDArray[Any]]:
        """The sequence_id and the tokens of a window."""
        window = self._windows[index]
        sequence_id, tokens = index, window
        if self._is_set:
            sequence_id, tokens = int(window.sequence_id), window.tokens
        if self._ids is not None:
            sequence_id = int(self._ids[index])
        array = np.asarray(tokens)
        return sequence_id, array if array.size else np.empty(
            0, np.int64
        )  # [] has no integer dtype

    def _identities(self) -> Iterator[tuple[int, int]]:
        """(sequence_id, fingerprint of the tokens) of each window."""
        for index in range(len(self)):
            sequence_id, tokens = self._window(index)
            yield sequence_id, fingerprint_tokens(tokens)


def _opened(name: str, source: Any) -> Any:
    """A file as a memory-mapped array; anything else as it is, if it has a length and items."""
    if isinstance(source, (str, os.PathLike)):
        try:
            return np.load(source, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            raise CacheIOError(f"{name}: cannot read {os.fspath(source)}: {error}") from error
        except ValueError as error:
            raise InvalidArgumentError(
                f"{name}: {os.fspath(source)} is not a .npy array: {error}"
            ) from error
    if hasattr(source, "__array__"):
        return np.asarray(source)
    if not isinstance(source, Sized) or not hasattr(source, "__getitem__"):
        raise InvalidArgumentError(
            f"{name} must be an array, a path or a list, so that a worker can take a part of them, "
            f"got {type(source).__name__}"
        )
    return source
