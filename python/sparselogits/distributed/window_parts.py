"""`WindowParts`: the windows of a capture as contiguous parts, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sparselogits.arrays import unsigned_array
from sparselogits.capture.given_windows import GivenWindows
from sparselogits.capture.window import Window
from sparselogits.capture.window_input import check_count, load
from sparselogits.capture.window_set import WindowSet, is_window_set
from sparselogits.errors import FingerprintMismatchError, InvalidArgumentError, MismatchError
from sparselogits.fingerprint import fingerprint_tokens
from sparselogits.id_set import first_repeated
from sparselogits.reader import Cache


class WindowParts:
    """Windows that any worker can take any range of.

    Args:
        windows: As `sparselogits.capture` takes them, with random access: a window set, an (N, S)
            array, the path of a `.npy`, a list of 1-D arrays.
        sequence_ids: One id a window; default: those of the window set, or the window's index.
        targets_mask: The layout of `windows`, bool, or None.

    Raises:
        InvalidArgumentError: Windows have no random access; other arguments have another number; an
            id repeats.
        CacheIOError: A file cannot be read.
    """

    def __init__(self, windows: Any, sequence_ids: Any = None, targets_mask: Any = None) -> None:
        self._windows: WindowSet = windows if is_window_set(windows) else GivenWindows(windows)
        self._ids = None if sequence_ids is None else unsigned_array("sequence_ids", sequence_ids)
        self._mask = None if targets_mask is None else load(targets_mask, "targets_mask")
        for name, other in (("sequence_ids", self._ids), ("targets_mask", self._mask)):
            if other is not None:
                check_count(name, len(other), len(self))
        if self._ids is not None:
            repeated = first_repeated(np.sort(self._ids))
            if repeated is not None:
                raise InvalidArgumentError(f"sequence_id {repeated} occurs more than once")

    def __len__(self) -> int:
        return len(self._windows)

    def arguments(self, part: range) -> dict[str, Any]:
        """What `capture` is given for these windows: they keep the ids that the whole gave them."""
        cut = slice(part.start, part.stop)
        arguments: dict[str, Any] = {"windows": self._windows.select(part)}
        if self._ids is not None:
            arguments["sequence_ids"] = self._ids[cut]
        if self._mask is not None:
            arguments["targets_mask"] = self._mask[cut]
        return arguments

    def tokens(self, part: range) -> list[npt.NDArray[np.int64]]:
        """The token ids of these windows, (S,) each."""
        return [self._windows[index].tokens for index in part]

    def digest(self) -> str:
        """32 hex digits of the tokens, ids and mask: of given windows by one pass over them, of a
        corpus by what it says of itself."""
        digest = hashlib.blake2b(digest_size=16)
        if isinstance(self._windows, GivenWindows):
            for window, *identity in self._identities():
                digest.update(np.array(identity, "<u8").tobytes())
                digest.update(np.packbits(window.captured).tobytes())
        else:
            digest.update(self._windows.content_digest().encode())
            digest.update(b"" if self._ids is None else self._ids.astype("<u8").tobytes())
        for row in () if self._mask is None else self._mask:
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
        for (window, sequence_id, fingerprint), (held_id, held_fingerprint) in zip(
            self._identities(), held, strict=True
        ):
            if sequence_id != held_id:
                raise MismatchError(
                    f"window {window.index}: the finished cache at {cache.path} holds sequence_id "
                    f"{held_id} in its place, not {sequence_id}"
                )
            if fingerprint != held_fingerprint:
                raise FingerprintMismatchError(
                    f"window {window.index}: the finished cache at {cache.path} holds sequence_id "
                    f"{sequence_id} with other tokens"
                )

    def _identities(self) -> Iterator[tuple[Window, int, int]]:
        """Each window with its sequence_id and the fingerprint of its tokens."""
        for index in range(len(self)):
            window = self._windows[index]
            sequence_id = window.sequence_id if self._ids is None else int(self._ids[index])
            yield window, sequence_id, fingerprint_tokens(window.tokens)
