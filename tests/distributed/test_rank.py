"""Which worker a process is."""

from __future__ import annotations

import pytest

import sparselogits as sl
from sparselogits.distributed import local_rank, rank_and_size

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}


def test_torchrun_comes_before_slurm_and_arguments_before_both() -> None:
    assert rank_and_size(environment={**SLURM, **TORCHRUN}) == (5, 8)
    assert rank_and_size(environment=SLURM) == (3, 4)
    assert rank_and_size(1, 2, {**SLURM, **TORCHRUN}) == (1, 2)
    assert rank_and_size(environment={}) == (0, 1)


def test_the_rank_on_a_machine() -> None:
    assert local_rank({**SLURM, **TORCHRUN}) == 1
    assert local_rank(SLURM) == 2
    assert local_rank({}) == 0


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "RANK and WORLD_SIZE go together, got 1 and None"),
        ({"WORLD_SIZE": "2"}, "RANK and WORLD_SIZE go together"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK must be from 0 to 1, got 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be from 0 to 1"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE must be from 1"),
        ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK must be an integer, got 'x'"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID and SLURM_NTASKS go together"),
    ],
)
def test_what_does_not_fit_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        rank_and_size(environment=environment)


def test_a_local_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(sl.InvalidArgumentError, match="LOCAL_RANK must be an integer, got ''"):
        local_rank({"LOCAL_RANK": ""})
