"""CalibrationMeter against the textbook's ECE, over batches, ranks and restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import sparselogits as sl
from sparselogits.torch import SparseTargets
from sparselogits.torch.meters import CalibrationMeter, Reliability
from sparselogits.torch.objectives import sampled_targets

ROWS, VOCABULARY = 4000, 12


def make_rows(sharpness: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels drawn from their softmax divided by `sharpness`: calibrated at 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(ROWS, VOCABULARY, generator=generator)
    labels = torch.multinomial((logits / sharpness).softmax(-1), 1, generator=generator)[:, 0]
    return logits, labels


def textbook(confidence: Any, accuracy: Any, bounds: Any) -> tuple[float, float]:
    """ECE and MCE of bins [bounds[b], bounds[b + 1])."""
    ece, mce = 0.0, 0.0
    bin_of = np.clip(np.searchsorted(bounds, confidence, side="right") - 1, 0, len(bounds) - 2)
    for b in range(len(bounds) - 1):
        inside = bin_of == b
        if inside.any():
            gap = abs(accuracy[inside].mean() - confidence[inside].mean())
            ece += inside.mean() * gap
            mce = max(mce, gap)
    return ece, mce


def measured(logits: torch.Tensor, num_bins: int = 15, **keywords: Any) -> CalibrationMeter:
    meter = CalibrationMeter(num_bins)
    meter.update(logits, **keywords)
    return meter


@pytest.mark.parametrize("num_bins", [1, 10, 15])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_equal_width_is_the_textbook_s_ece(num_bins: int, temperature: float) -> None:
    logits, labels = make_rows()
    p = (logits.double() / temperature).softmax(-1).numpy()
    confidence, right = p.max(-1), p.argmax(-1) == labels.numpy()
    meter = measured(logits, num_bins, labels=labels, temperature=temperature)
    found = meter.compute()
    expected = textbook(confidence, right, np.linspace(0, 1, num_bins + 1))
    assert (found.ece, found.mce) == pytest.approx(expected, abs=1e-6)
    assert found.accuracy == pytest.approx(right.mean(), abs=1e-12)
    assert found.confidence == pytest.approx(confidence.mean(), abs=1e-6)
    assert found.count == ROWS


def test_equal_mass_bins_hold_as_much_and_give_the_textbook_s_ece() -> None:
    logits, labels = make_rows()
    p = logits.double().softmax(-1).numpy()
    confidence, right = p.max(-1), p.argmax(-1) == labels.numpy()
    found = measured(logits, 8, labels=labels).compute("equal_mass")
    counts = [part.count for part in found.bins]
    assert len(counts) == 8
    assert max(counts) - min(counts) < 0.02 * ROWS
    bounds = [0.0, *(part.upper for part in found.bins)]
    assert bounds[-1] == 1.0
    assert (found.ece, found.mce) == pytest.approx(textbook(confidence, right, bounds), abs=1e-6)
    by_quantile = np.quantile(confidence, np.linspace(0, 1, 9))
    assert found.ece == pytest.approx(textbook(confidence, right, by_quantile)[0], abs=2e-3)


def test_a_calibrated_model_shows_the_noise_floor_and_an_overconfident_one_more() -> None:
    ratios = []
    for seed in range(6):
        logits, labels = make_rows(seed=seed)
        found = measured(logits, labels=labels).compute()
        ratios.append(found.ece / found.noise_floor)
    assert 0.7 < np.mean(ratios) < 1.3
    logits, labels = make_rows(sharpness=2.0)
    sharp = measured(logits, labels=labels).compute()
    assert sharp.ece > 8 * sharp.noise_floor
    assert sharp.confidence > sharp.accuracy


def test_batches_merges_and_restarts_give_the_same_integers() -> None:
    logits, labels = make_rows()
    whole = measured(logits, labels=labels)
    parts = [CalibrationMeter() for _ in range(3)]
    for number, rows in enumerate(torch.randperm(ROWS).split(333)):
        parts[number % 3].update(logits[rows], labels=labels[rows])
    resumed = CalibrationMeter()
    resumed.load_state_dict(parts[0].state_dict())
    resumed.merge(parts[1]).merge(parts[2])
    for binning in ("equal_width", "equal_mass"):
        assert resumed.compute(binning) == whole.compute(binning)
    before = parts[0].compute().count
    resumed.update(logits, labels=labels)
    assert parts[0].compute().count == before


def test_masks_and_missing_labels_do_not_count() -> None:
    logits, labels = make_rows()
    shape = (40, 100)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(4)) < 0.5
    labels[::3] = -100
    keep = mask.flatten() & (labels != -100)
    expected = measured(logits[keep], labels=labels[keep]).compute()
    dirty = logits.clone()
    dirty[~keep] = torch.nan
    found = measured(dirty.view(*shape, -1), labels=labels.view(shape), mask=mask).compute()
    assert found == expected


def test_positions_without_a_probability_are_reported_not_dropped() -> None:
    logits, labels = make_rows()
    logits[5, 3] = torch.nan
    logits[9, 0] = torch.inf
    meter = measured(logits, labels=labels)
    with pytest.raises(sl.InvalidArgumentError, match="most likely token of 2 positions"):
        meter.compute()


def test_against_a_live_teacher_the_noise_of_labels_is_gone() -> None:
    logits, _ = make_rows()
    teacher = logits / 1.5
    p, t = logits.double().softmax(-1).numpy(), teacher.double().softmax(-1).numpy()
    right = np.take_along_axis(t, p.argmax(-1)[:, None], -1)[:, 0]
    expected, _ = textbook(p.max(-1), right, np.linspace(0, 1, 16))
    found = measured(logits, teacher_logits=teacher).compute()
    assert found.ece == pytest.approx(expected, abs=1e-6)
    itself = measured(logits, teacher_logits=logits).compute()
    assert itself.ece < 1e-6


def test_draws_of_a_cache_estimate_accuracy_without_bias() -> None:
    logits, _ = make_rows()
    teacher = logits / 1.5
    exact = measured(logits, teacher_logits=teacher).compute()
    targets = sampled_targets(teacher, np.arange(ROWS), rounds=3, seed=1)
    drawn = measured(logits, targets=targets).compute()
    for a, b in zip(exact.bins, drawn.bins, strict=True):
        error = (a.accuracy * (1 - a.accuracy) / (3 * a.count)) ** 0.5
        assert abs(a.accuracy - b.accuracy) < 5 * error
        assert a.confidence == b.confidence


def test_empty_rows_of_targets_do_not_count() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    targets = SparseTargets(torch.tensor([0, 0, 1]), torch.tensor([1]), torch.tensor([0.75]), 2)
    found = measured(logits, targets=targets).compute()
    assert (found.count, found.accuracy) == (1, 0.75)


def test_certainty_lies_in_the_last_bin() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0]])
    (part,) = measured(logits, 4, labels=torch.tensor([0])).compute().bins
    assert (part.lower, part.upper, part.confidence, part.accuracy) == (0.75, 1.0, 1.0, 1.0)
    (part,) = measured(logits, 4, labels=torch.tensor([0])).compute("equal_mass").bins
    assert (part.lower, part.upper) == (0.0, 1.0)


def test_narrow_logits_are_reduced_in_float32() -> None:
    logits, labels = make_rows()
    narrow = logits.bfloat16()
    assert measured(narrow, labels=labels).compute() == (
        measured(narrow.float(), labels=labels).compute()
    )


def test_more_positions_than_the_integers_hold_are_refused() -> None:
    logits, labels = make_rows()
    meter = measured(logits, labels=labels)
    state = meter.state_dict()
    state["sums"]["count"] = state["sums"]["count"] + 2**31
    meter.load_state_dict(state)
    with pytest.raises(sl.InvalidArgumentError, match="sums of 2147483648 overflow"):
        meter.compute()


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({}, "0 of labels, targets and teacher_logits"),
        ({"labels": torch.zeros(3).long(), "teacher_logits": torch.zeros(3, 4)}, "2 of labels"),
        ({"labels": torch.zeros(2).long()}, "labels has shape"),
        ({"teacher_logits": torch.zeros(2, 4)}, "teacher_logits has 2 rows"),
        ({"labels": torch.zeros(3).long(), "temperature": 0.0}, "temperature must be"),
        ({"labels": torch.zeros(3).long(), "mask": torch.ones(3)}, "mask is torch.float32"),
    ],
)
def test_wrong_arguments_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        CalibrationMeter().update(torch.zeros(3, 4), **keywords)


def test_meters_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(sl.InvalidArgumentError, match="has seen no position"):
        CalibrationMeter().compute()
    with pytest.raises(sl.InvalidArgumentError, match="num_bins must be"):
        CalibrationMeter(0)
    with pytest.raises(sl.MismatchError, match="num_bins"):
        CalibrationMeter(10).merge(CalibrationMeter(15))
    with pytest.raises(sl.MismatchError, match="num_bins"):
        CalibrationMeter(10).load_state_dict(CalibrationMeter(15).state_dict())
    logits, labels = make_rows()
    with pytest.raises(sl.InvalidArgumentError, match="binning must be one of"):
        measured(logits, labels=labels).compute("adaptive")


def test_a_saved_result_is_read_back(tmp_path: Any) -> None:
    logits, labels = make_rows()
    found = measured(logits, labels=labels).compute("equal_mass")
    found.save(tmp_path / "r.json")
    assert Reliability.load(tmp_path / "r.json") == found
