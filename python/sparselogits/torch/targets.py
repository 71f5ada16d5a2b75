"""SparseTargets: the teacher's sparse distributions of a batch, as the losses consume them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sparselogits.errors import InvalidArgumentError

if TYPE_CHECKING:
    from sparselogits.sparse import SparseLogits


@dataclass(frozen=True, eq=False)
class SparseTargets:
    """One sparse target distribution per row, as compressed sparse rows (CSR).

    Row r holds the entries `offsets[r]:offsets[r + 1]`. For a batch of B windows of S tokens there
    are R = B·S rows, row-major, and row b·S + t is the teacher's distribution of token t + 1.
    A row may be empty; the losses ignore it. The weights of a row need not sum to one.

    The weights are constants to the losses: no gradient flows into them.

    Attributes:
        offsets: (R + 1,) int64, from 0 to E, never decreasing.
        token_ids: (E,) int64 or int32, unique within a row, in any order.
        weights: (E,) float32, finite and not negative.
        vocab_size: The teacher's vocabulary: every id is below it. None where it is not known.

    Raises:
        InvalidArgumentError: A shape, dtype, device or value is wrong. Values are checked for
            tensors in host memory only: reading them elsewhere would stall the device.
    """

    offsets: Tensor
    token_ids: Tensor
    weights: Tensor
    vocab_size: int | None = None
    # Not a field: what rebuilds dataclasses, as FSDP does with the inputs of a forward, then can.
    _host_offsets: ClassVar[Tensor | None] = None

    def __post_init__(self) -> None:
        _check_layout(self)
        if self.offsets.device.type == "cpu":
            _check_offsets(self.offsets, self.token_ids.numel())
            _check_token_ids(self)
            _check_weights(self.weights)

    @classmethod
    def from_sparse_logits(cls, sparse: SparseLogits) -> SparseTargets:
        """Wraps what a cache returned, without a copy; the rows are its positions in order."""
        return cls(
            torch.from_numpy(sparse.offsets),
            torch.from_numpy(sparse.token_ids),
            torch.from_numpy(sparse.weights),
            sparse.vocab_size,
        )

    @classmethod
    def with_host_offsets(
        cls,
        offsets: Tensor,
        token_ids: Tensor,
        weights: Tensor,
        vocab_size: int | None,
        host_offsets: Tensor | None,
    ) -> SparseTargets:
        """Targets whose offsets are known in host memory too: see `host_offsets`."""
        targets = cls(offsets, token_ids, weights, vocab_size)
        object.__setattr__(targets, "_host_offsets", host_offsets)
        return targets

    @classmethod
    def _of_checked(
        cls, offsets: Tensor, token_ids: Tensor, weights: Tensor, vocab_size: int | None
    ) -> SparseTargets:
        """Targets of what the core has decoded, and so validated: nothing is looked at again."""
        targets = object.__new__(cls)
        object.__setattr__(targets, "offsets", offsets)
        object.__setattr__(targets, "token_ids", token_ids)
        object.__setattr__(targets, "weights", weights)
        object.__setattr__(targets, "vocab_size", vocab_size)
        return targets

    @property
    def num_rows(self) -> int:
        """R, the number of rows, empty ones included."""
        return self.offsets.numel() - 1

    @property
    def num_entries(self) -> int:
        """E, the number of entries of all rows."""
        return self.token_ids.numel()

    @property
    def device(self) -> torch.device:
        """Where the three tensors are."""
        return self.offsets.device

    @property
    def host_offsets(self) -> Tensor:
        """The offsets in host memory, (R + 1,) int64.

        Kept by `to`, so that a loss can slice rows without waiting for the device. Targets that
        were built on a device pay one transfer, the first time.
        """
        if self.offsets.device.type == "cpu":
            return self.offsets
        if self._host_offsets is None:
            object.__setattr__(self, "_host_offsets", self.offsets.cpu())
        assert self._host_offsets is not None
        return self._host_offsets

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> SparseTargets:
        """The same targets on `device`. `non_blocking` needs pinned memory to have an effect."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        if self.device.type == "cpu" and moved.device.type != "cpu":
            object.__setattr__(moved, "_host_offsets", self.offsets)
        return moved

    def pin_memory(self) -> SparseTargets:
        """The same targets in page-locked host memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> SparseTargets:
        # A copy of something valid is valid: a copy does not run __post_init__ again.
        mapped = copy.copy(self)
        for name in ("offsets", "token_ids", "weights"):
            object.__setattr__(mapped, name, function(getattr(self, name)))
        return mapped


_DTYPES = {
    "offsets": (torch.int64,),
    "token_ids": (torch.int64, torch.int32),
    "weights": (torch.float32,),
}


def _check_layout(targets: SparseTargets) -> None:
    for name, dtypes in _DTYPES.items():
        tensor = getattr(targets, name)
        if not isinstance(tensor, Tensor):
            raise InvalidArgumentError(f"{name} is {type(tensor).__name__}; it must be a Tensor")
        if tensor.dtype not in dtypes:
            allowed = " or ".join(str(dtype) for dtype in dtypes)
            raise InvalidArgumentError(f"{name} is {tensor.dtype}; it must be {allowed}")
        if tensor.dim() != 1:
            raise InvalidArgumentError(f"{name} has {tensor.dim()} dimensions; it must have 1")
        if tensor.device != targets.offsets.device:
            raise InvalidArgumentError(
                f"{name} is on {tensor.device} and offsets on {targets.offsets.device}"
            )
    if targets.offsets.numel() == 0:
        raise InvalidArgumentError("offsets is empty; R rows need R + 1 offsets")
    if targets.token_ids.numel() != targets.weights.numel():
        raise InvalidArgumentError(
            f"token_ids has {targets.token_ids.numel()} entries and weights "
            f"{targets.weights.numel()}"
        )
    if targets.weights.requires_grad:
        raise InvalidArgumentError("weights requires grad, but the losses treat it as constant")
    if targets.vocab_size is not None and targets.vocab_size < 1:
        raise InvalidArgumentError(f"vocab_size is {targets.vocab_size}; it must be at least 1")


def _check_offsets(offsets: Tensor, num_entries: int) -> None:
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0:
        raise InvalidArgumentError(f"offsets[0] is {first}; it must be 0")
    if last != num_entries:
        raise InvalidArgumentError(f"offsets ends at {last}, but there are {num_entries} entries")
    falls = (offsets[1:] < offsets[:-1]).nonzero()
    if falls.numel():
        row = int(falls[0, 0])
        raise InvalidArgumentError(
            f"offsets decreases at row {row}: from {int(offsets[row])} to {int(offsets[row + 1])}"
        )


def _check_token_ids(targets: SparseTargets) -> None:
    ids, offsets = targets.token_ids, targets.offsets
    if ids.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(ids))
    if low < 0:
        raise InvalidArgumentError(f"token_ids holds {low}; an id cannot be negative")
    if targets.vocab_size is not None and high >= targets.vocab_size:
        raise InvalidArgumentError(
            f"token_ids holds {high}; the vocabulary has {targets.vocab_size} ids"
        )
    # Rows from a cache ascend, which proves them unique in one pass; only others are sorted.
    ascends = ids[1:] > ids[:-1]
    starts = offsets[1:-1]
    ascends[starts[(starts > 0) & (starts < ids.numel())] - 1] = True
    if bool(ascends.all()):
        return
    rows = torch.repeat_interleave(offsets.diff(), output_size=ids.numel())
    keys = (rows * (high + 1) + ids).sort().values
    twins = (keys[1:] == keys[:-1]).nonzero()
    if twins.numel():
        row, token_id = divmod(int(keys[twins[0, 0]]), high + 1)
        raise InvalidArgumentError(f"row {row} holds token id {token_id} twice; merge its weights")


def _check_weights(weights: Tensor) -> None:
    bad = (~(torch.isfinite(weights) & (weights >= 0))).nonzero()
    if bad.numel():
        entry = int(bad[0, 0])
        raise InvalidArgumentError(
            f"weights[{entry}] is {float(weights[entry])}; it must be finite and not negative"
        )
