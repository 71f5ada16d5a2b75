"""Which worker this process is, as torchrun or Slurm tell it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sparselogits.checks import integer
from sparselogits.errors import InvalidArgumentError

# The names of the rank, of the number of workers and of the rank on this machine.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_MAX_WORKERS = 1 << 20


def rank_and_size(
    rank: int | None = None,
    world_size: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """The number of this worker and how many there are.

    Args:
        rank, world_size: As given by the caller: both or neither. Else the environment counts:
            RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, or a single worker.
        environment: Default: that of the process.

    Raises:
        InvalidArgumentError: Only one of the two is there, or they do not fit; names them.
    """
    if rank is not None or world_size is not None:
        return _checked(("rank", "world_size"), rank, world_size)
    variables = os.environ if environment is None else environment
    for names in (_TORCHRUN, _SLURM):
        number, size = (_number(name, variables.get(name)) for name in names[:2])
        if number is not None or size is not None:
            return _checked(names[:2], number, size)
    return 0, 1


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """The number of this worker on its machine: LOCAL_RANK, else SLURM_LOCALID, else 0.

    Raises:
        InvalidArgumentError: It is no number.
    """
    variables = os.environ if environment is None else environment
    for name in (_TORCHRUN[2], _SLURM[2]):
        value = _number(name, variables.get(name))
        if value is not None:
            return integer(name, value, 0, _MAX_WORKERS)
    return 0


def _number(name: str, text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        raise InvalidArgumentError(f"{name} must be an integer, got {text!r}") from None


def _checked(names: tuple[str, ...], rank: int | None, size: int | None) -> tuple[int, int]:
    if rank is None or size is None:
        raise InvalidArgumentError(
            f"{names[0]} and {names[1]} go together, got {rank!r} and {size!r}"
        )
    count = integer(names[1], size, 1, _MAX_WORKERS)
    return integer(names[0], rank, 0, count - 1), count
