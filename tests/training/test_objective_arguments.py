"""What objectives refuse, by name, and what they say about themselves."""

from __future__ import annotations

from typing import Any

import dense_objectives as dense
import pytest
import torch
from dense_objectives import OPTIONS

from sparselogits import errors
from sparselogits.torch import objectives

STUDENT, TEACHER, LABELS = dense.make_rows()


@pytest.mark.parametrize(
    "objective, keywords, message",
    [
        (objectives.CrossEntropy(), {}, "CrossEntropy needs labels"),
        (objectives.SampledKD(), {}, "SampledKD needs targets"),
        (objectives.FullKD(), {"labels": LABELS}, "FullKD needs teacher_logits"),
        (objectives.FullKD(alpha=0.5), {"teacher_logits": TEACHER}, "FullKD needs labels"),
        (objectives.TopTokens(), {"teacher_logits": TEACHER}, "needs targets, or k or p"),
        (objectives.TopTokens(k=3), {}, "needs teacher_logits to choose"),
        (objectives.TopTokens(k=62), {"teacher_logits": TEACHER}, "k must be from 1 to 61"),
        (objectives.TopTokens(k=3, rest="label"), {"teacher_logits": TEACHER}, "needs labels"),
        (objectives.FullKD(), {"teacher_logits": TEACHER[:3]}, "has 3 rows"),
        (objectives.FullKD(), {"teacher_logits": TEACHER, "temperature": 0}, "temperature is 0"),
        (objectives.GhostToken(k=2), {"teacher_logits": TEACHER, "temperature": -1}, "above 0"),
        (objectives.CrossEntropy(), {"labels": LABELS.float()}, "labels is torch.float32"),
        (objectives.CrossEntropy(), {"labels": LABELS[:5]}, "labels has shape"),
        (objectives.CrossEntropy(), {"labels": LABELS.where(LABELS < 0, -3)}, "labels holds -3"),
        (objectives.LabelSmoothing(vocab_size=62), {"labels": LABELS}, "vocab_size is 62"),
        (
            objectives.ReverseKD(),
            {"teacher_logits": TEACHER, "subtract_entropy": True},
            "divergence already",
        ),
        (
            objectives.FullKD(),
            {"teacher_logits": TEACHER, "position_weights": LABELS},
            "position_weights is torch.int64",
        ),
        (
            objectives.FullKD(),
            {"teacher_logits": TEACHER, "position_weights": torch.full((dense.ROWS,), -1.0)},
            r"position_weights of row 0 is -1\.0",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(objective: Any, keywords: dict, message: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        objective(STUDENT, **keywords)


def test_a_vocabulary_larger_than_the_head_is_refused() -> None:
    with pytest.raises(errors.VocabularyMismatchError, match="61 columns and logits only 60"):
        objectives.FullKD()(STUDENT[:, :60], teacher_logits=TEACHER)
    with pytest.raises(errors.VocabularyMismatchError, match="labels holds token id 60"):
        objectives.CrossEntropy()(STUDENT[:, :60], labels=torch.full_like(LABELS, 60))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("top_q", {}, "objective is 'top_q'; it must be one of"),
        ("top_k", {}, "needs the option k"),
        ("top_p", {"k": 3}, "needs the option p"),
        ("top_k", {"k": 3, "p": 0.5}, "one of them chooses"),
        ("top_k", {"k": 3, "rest": "lost"}, "rest is 'lost'"),
        ("full_kd", {"alpha": 1.5}, "alpha is 1.5"),
        ("label_smoothing", {"epsilon": -0.1}, "epsilon is -0.1"),
        ("full_kd", {"beta": 1.5}, "objective 'full_kd'.*beta"),
        ("naive_fix", {"k": 3, "rest": "drop"}, "always 'label'"),
    ],
)
def test_a_wrong_configuration_is_named(name: str, options: dict, message: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        objectives.make_objective(name, **options)


def test_biased_ones_say_so() -> None:
    unbiased = {"cross_entropy", "sampled_kd", "full_kd"}
    for name in objectives.OBJECTIVES:
        options = OPTIONS.get(name, {})
        assert objectives.make_objective(name, **options).biased == (name not in unbiased)
