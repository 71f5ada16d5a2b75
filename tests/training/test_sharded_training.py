"""The losses under DDP and FSDP2 on 2 gloo ranks against one process with the whole batch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import sharded_training_script as script
from two_ranks import RANKS, outcomes

LOSSES = ("fused", "lse")


@cache
def found() -> list[dict[str, str]]:
    return outcomes(Path(script.__file__))


def on_every_rank(case: str) -> list[str]:
    return [outcome[case] for outcome in found()]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "way",
    [
        "ddp_loss_in_forward",
        "fsdp_loss_in_forward",
        "fsdp_registered_method",
        "fsdp_head_with_loss",
        "fsdp_full_tensor",
    ],
)
def test_a_head_with_its_loss_equals_one_process(way: str, loss: str) -> None:
    assert on_every_rank(f"{way}, {loss}") == ["equal"] * RANKS


@pytest.mark.parametrize(
    "way",
    [
        "ddp_logits",
        "ddp_accumulating_weight_grad",
        "fsdp_logits, inplace=False",
        "fsdp_logits, inplace=True",
        "fsdp_loss_in_bfloat16",
        "fsdp_summing",
        "fsdp_accumulating_batches",
    ],
)
def test_so_does_every_other_way(way: str) -> None:
    assert on_every_rank(way) == ["equal"] * RANKS


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sharded_weight_is_refused_with_the_way_out(loss: str) -> None:
    message = (
        "InvalidArgumentError: weight is a sharded DTensor; compute the loss in the forward of the "
        "FSDP module that has it, or pass full_tensor(grad_placements=[Partial('avg')]) "
        "(docs/distributed_training.md)"
    )
    assert on_every_rank(f"fsdp_sharded_weight, {loss}") == [message] * RANKS


def test_targets_that_fsdp_has_rounded_are_refused() -> None:
    message = "InvalidArgumentError: weights is torch.bfloat16; it must be torch.float32"
    assert on_every_rank("fsdp_cast_targets") == [message] * RANKS
