"""On a device, objectives and meters ask for no value: they run where reading one is impossible.

The meta device has no values: whatever waits for one raises there (`test_loss_on_device` shows it).
"""

from __future__ import annotations

from typing import Any

import dense_objectives as dense
import pytest
import torch
from dense_reference import make_targets

from sparselogits.torch import SparseTargets, objectives
from sparselogits.torch.meters import (
    AcceptanceBoundsMeter,
    AcceptanceMeter,
    CalibrationMeter,
    GradientAngleMeter,
)

WAITING = ("top_p", "naive_fix")
"""Their number of entries depends on values; the docstrings say so."""


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    student, teacher, labels = (rows.to("meta") for rows in dense.make_rows(dtype))
    mask = torch.ones(dense.ROWS, dtype=torch.bool, device="meta")
    return student, teacher, labels, mask


def stored() -> SparseTargets:
    return make_targets(dense.ROWS, dense.VOCABULARY).to("meta")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [n for n in objectives.OBJECTIVES if n not in WAITING])
def test_objectives_wait_for_nothing(name: str, dtype: torch.dtype) -> None:
    student, teacher, labels, mask = inputs(dtype)
    options = {"k": 5} if name in ("top_k", "ghost_token", "smoothed_residual") else {}
    for alpha in (0.0, 0.3):
        if alpha and name not in ("cross_entropy", "label_smoothing"):
            options["alpha"] = alpha
        leaf = student.clone().requires_grad_()
        loss = objectives.make_objective(name, **options)(
            leaf,
            stored(),
            labels=labels,
            teacher_logits=teacher,
            mask=mask,
            position_weights=torch.ones(dense.ROWS, device="meta"),
            subtract_entropy=name != "reverse_kd",
            temperature=1.5,
        )
        (2 * loss).backward()
        assert leaf.grad is not None
        assert leaf.grad.is_meta


@pytest.mark.parametrize(
    "objective",
    [objectives.TopTokens(), objectives.GhostToken(), objectives.SmoothedResidual(alpha=0.2)],
)
def test_stored_tokens_wait_for_nothing(objective: objectives.Objective) -> None:
    student, _, labels, _ = inputs()
    leaf = student.requires_grad_()
    objective(leaf, stored(), labels=labels).backward()
    assert leaf.grad is not None


def test_weights_of_hard_tokens_wait_for_nothing() -> None:
    _, teacher, labels, mask = inputs()
    for source in (teacher, stored()):
        confidence = objectives.label_confidence(source, labels)
        assert objectives.hard_token_weights(confidence, mask=mask).is_meta


def test_updates_of_meters_wait_for_nothing() -> None:
    student, teacher, labels, mask = inputs()
    for judge in ({"labels": labels}, {"teacher_logits": teacher}, {"targets": stored()}):
        CalibrationMeter().update(student, mask=mask, **judge)
    AcceptanceMeter().update(student, teacher, mask=mask)
    AcceptanceBoundsMeter(rounds=5).update(student, stored(), mask=mask)
    meter = GradientAngleMeter()
    meter.update([student], [teacher])
    with pytest.raises((RuntimeError, NotImplementedError)):
        meter.compute()
