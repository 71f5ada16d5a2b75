"""The position of a training run, as a small dictionary that JSON can hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparselogits.errors import MismatchError

VERSION = 2
MAX_EPOCH = (1 << 32) - 1
SETTINGS = ("shuffle", "window", "filter", "mixture")
"""What else fixes the order. A state holds a digest of each, so that it stays below 200 bytes."""

_CACHE_DIGITS = 16
_SETTING_DIGITS = 7


@dataclass(frozen=True)
class StateKey:
    """What a position refers to: it means nothing to a dataset in which any of these differs.

    Attributes:
        cache: Digest of the cache or caches, 64 hex digits.
        seed: Of the shuffle.
        global_batch: Samples of a step on all ranks.
        settings: The values behind each of `SETTINGS`, as JSON can hold them.
    """

    cache: str
    seed: int
    global_batch: int
    settings: Mapping[str, Mapping[str, Any]]

    def state(self, epoch: int, consumed: int) -> dict[str, Any]:
        """The position after so many samples of an epoch."""
        return {
            "version": VERSION,
            "cache": self.cache[:_CACHE_DIGITS],
            "seed": self.seed,
            "epoch": epoch,
            "consumed": consumed,
            "global_batch": self.global_batch,
            "settings": "".join(_digest(self.settings[name]) for name in SETTINGS),
        }

    def position(self, state: Mapping[str, Any]) -> tuple[int, int]:
        """Epoch and samples consumed in it.

        Raises:
            MismatchError: The state is not one, or belongs to another dataset; says what differs.
        """
        if state.get("version") != VERSION:
            raise MismatchError(
                f"the state has version {state.get('version')!r}; this release reads {VERSION}"
            )
        here = self.state(0, 0)
        for name in ("cache", "seed", "global_batch"):
            if state.get(name) != here[name]:
                raise MismatchError(
                    f"the state was saved with {name} {state.get(name)!r} and this dataset has "
                    f"{here[name]!r}"
                )
        self._check_settings(state.get("settings"), here["settings"])
        return count(state, "epoch", MAX_EPOCH), count(state, "consumed", (1 << 63) - 1)

    def _check_settings(self, saved: Any, here: str) -> None:
        if not isinstance(saved, str) or len(saved) != len(here):
            raise MismatchError(f"the state's settings must be {len(here)} digits, got {saved!r}")
        for index, name in enumerate(SETTINGS):
            digits = slice(index * _SETTING_DIGITS, (index + 1) * _SETTING_DIGITS)
            if saved[digits] != here[digits]:
                values = ", ".join(f"{key}={value!r}" for key, value in self.settings[name].items())
                raise MismatchError(
                    f"the state was saved with another {name}; this dataset has {values}"
                )


def count(state: Mapping[str, Any], name: str, largest: int) -> int:
    """A member of a state: an integer in 0 … largest.

    Raises:
        MismatchError: It is not.
    """
    value = state.get(name)
    if type(value) is not int or not 0 <= value <= largest:
        raise MismatchError(
            f"the state's {name} must be an integer from 0 to {largest}, got {value!r}"
        )
    return value


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_SETTING_DIGITS]
