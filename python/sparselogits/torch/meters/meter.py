"""Meter: sums over positions that stay on the device until someone asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError, MismatchError
from sparselogits.torch.arguments import flatten_mask, flatten_rows

M = TypeVar("M", bound="Meter")

FIXED_POINT_BITS = 32
"""Of quantities in [0, 1] that are summed as integers: exact, in any order, for 2^31 positions."""


class Meter:
    """Sums of int64 and float64. Updates wait for nothing; only `compute` reads a device.

    All of a meter is sums, so that meters of parts of the data add up: over ranks (`all_reduce`),
    over processes (`merge`), over a restart (`state_dict`).
    """

    def __init__(self, options: Mapping[str, Any], sums: Mapping[str, Tensor]) -> None:
        self._options = dict(options)
        self._sums = dict(sums)  # never changed in place: a state may share them

    def state_dict(self) -> dict[str, Any]:
        """Options and sums, the latter in host memory: for `torch.save`."""
        return {"options": dict(self._options), "sums": {k: v.cpu() for k, v in self._sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave.

        Raises:
            MismatchError: The state is that of a meter with other options.
        """
        self._check_same(state["options"])
        self._sums = {name: state["sums"][name] for name in self._sums}

    def merge(self: M, other: M) -> M:
        """Adds what another meter has seen; returns this one.

        Raises:
            MismatchError: It is another kind of meter or has other options.
        """
        if type(other) is not type(self):
            raise MismatchError(
                f"a {type(other).__name__} cannot be added to {type(self).__name__}"
            )
        self._check_same(other._options)
        for name, value in self._sums.items():
            self._sums[name] = value + other._sums[name].to(value.device)
        return self

    def all_reduce(self, group: Any = None) -> None:
        """Adds up the meters of all ranks of a process group; every rank then has the total.

        Call it once, before `compute`: a second call would count every rank again.
        """
        for name, value in self._sums.items():
            total = value.clone()
            torch.distributed.all_reduce(total, group=group)
            self._sums[name] = total

    def to(self: M, device: torch.device | str) -> M:
        """Moves the sums; returns this meter. Updates do so by themselves."""
        self._sums = {name: value.to(device) for name, value in self._sums.items()}
        return self

    def _check_same(self, options: Mapping[str, Any]) -> None:
        if dict(options) != self._options:
            raise MismatchError(f"options are {dict(options)}; those of this meter {self._options}")

    def _add(self, **values: Tensor) -> None:
        for name, value in values.items():
            if self._sums[name].device != value.device:
                self.to(value.device)
            self._sums[name] = self._sums[name] + value


def rows_and_mask(
    logits: Tensor, mask: Tensor | None, name: str = "logits"
) -> tuple[Tensor, Tensor, torch.Size]:
    """(R, V) logits without their graph, (R,) bool rows that count, and the leading shape."""
    flat, leading = flatten_rows(logits, name)
    keep = flatten_mask(mask, leading, flat.device)
    if keep is None:
        keep = torch.ones(flat.shape[0], dtype=torch.bool, device=flat.device)
    return flat.detach(), keep, leading


def fixed_point(values: Tensor) -> Tensor:
    """int64 of values in [0, 1] (or not much above), in units of 2^-32."""
    return (values.double() * 2.0**FIXED_POINT_BITS).round().long()


def check_positive(count: int, name: str) -> None:
    """Refuses to divide by the positions of a meter that has seen none."""
    if count == 0:
        raise InvalidArgumentError(f"{name} has seen no position that counts")
