"""`benchmarks/study_estimators.py`: its estimators are what they claim, and the script runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparselogits.sampling_error import sampling_error

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ROWS, VOCABULARY = 20_000, 40
Z = 5.2  # P(|z| > 5.2) = 2e-7, times some 40 tokens and 8 estimators

SIZES = {
    "systematic": 7,
    "stratified": 7,
    "lower bound (common τ)": 0.11,
    "fixed-K optimal sparsification": 6,
    "head K/2 exact + sampled tail": 6,
    "proposal t = 1.2": 7,
    "proposal t = 0.8": 7,
}


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from estimators import blocks, facts, table

    class Modules:
        Block, measured, is_biased = blocks.Block, facts.measured, facts.is_biased
        estimators = (table.REFERENCE, *table.MATCHED)
        biased = table.BIASED

    return Modules


def row() -> Any:
    ranks = np.random.default_rng(2).permutation(VOCABULARY) + 1.0
    return ranks**-1.4 / (ranks**-1.4).sum()


def block(study: Any, columns: bool) -> Any:
    """The same row many times; its columns are token ids, or stand for every third one."""
    p = np.tile(row(), (ROWS, 1))
    ids = np.tile(np.arange(VOCABULARY) * 3, (ROWS, 1)) if columns else None
    logits = np.log(p).astype(np.float32)
    return study.Block(p, logits, ids, np.full(ROWS, 5), 0)


def dense(target: Any) -> Any:
    weights = np.zeros((ROWS, VOCABULARY))
    weights[target.rows, target.columns] = target.weights
    return weights


def z_scores(samples: Any, expected: Any) -> Any:
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return (samples.mean(axis=0) - expected) / np.maximum(error, 1e-7)


def test_draws_have_the_mean_the_variance_and_the_ids_of_the_closed_forms(study: Any) -> None:
    whole = block(study, columns=True)
    p = row()
    for estimator in study.estimators:
        if study.is_biased(estimator):
            continue
        size = SIZES.get(estimator.name, 7)
        target = estimator.draw(whole, size, seed=3)
        assert (target.token_ids == 3 * target.columns).all()
        weights = dense(target)
        variance = estimator.variance(whole.p[:1], size)[0]
        inclusion = estimator.inclusion(whole.p[:1], size)[0]
        assert np.abs(z_scores(weights, p)).max() < Z, estimator.name
        assert np.abs(z_scores((weights - p) ** 2, variance)).max() < Z, estimator.name
        assert np.abs(z_scores(weights > 0, inclusion)).max() < Z, estimator.name


def test_closed_forms_are_those_of_the_library(study: Any) -> None:
    generator = np.random.default_rng(5)
    p = generator.random((6, 300)) ** 8
    p /= p.sum(axis=1, keepdims=True)
    for estimator in study.estimators[:3]:
        for size in (1, 7, 50):
            expected = sampling_error(p, np.array([size]), estimator.sampler)
            error = estimator.variance(p, size).sum(axis=1)
            ids = estimator.inclusion(p, size).sum(axis=1)
            np.testing.assert_allclose(error, expected.squared_error[:, 0], rtol=1e-9)
            np.testing.assert_allclose(ids, expected.unique_ids[:, 0], rtol=1e-5)


def test_biased_references_hold_the_mass_that_they_should(study: Any) -> None:
    whole = block(study, columns=False)
    p = row()
    for estimator, _ in study.biased:
        weights = dense(estimator.draw(whole, 4, seed=0))[0]
        top = np.argsort(p)[-4:]
        if estimator.rest == "ghost":
            np.testing.assert_allclose(weights[top], p[top])
            assert np.count_nonzero(weights) == 4
        elif estimator.rest == "label":
            np.testing.assert_allclose(weights[5], p[5] * (5 in top) + 1 - p[top].sum())
            assert weights.sum() == pytest.approx(1)
        else:
            np.testing.assert_allclose(weights[top], p[top] / p[top].sum())


def test_chi_square_of_self_normalised_weights_is_that_of_their_draws(study: Any) -> None:
    """With one draw integrated out, against a plain mean, where tokens are not too rare for one."""
    whole = block(study, columns=False)
    for estimator in study.estimators:
        if not study.is_biased(estimator):
            continue
        _, chi_square = study.measured(whole, estimator.draw(whole, 7, seed=1))
        expected = estimator.chi_square(whole, 7, seed=2)
        error = chi_square.std() / np.sqrt(ROWS)
        assert abs(chi_square.mean() - expected) < Z * 2**0.5 * error


def test_the_quick_study_runs_and_its_tables_are_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "estimators.md").write_text(
        "before\n<!-- tables of flat -->\nold\n<!-- end of flat -->\nafter\n"
        "<!-- tables of sharp -->\n<!-- end of sharp -->\n"
    )
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import study_estimators

    study_estimators.main(["--quick", "--out", str(tmp_path)])
    with (tmp_path / "estimators.csv").open() as file:
        records = list(csv.DictReader(file))
    assert {record["regime"] for record in records} == {"flat", "sharp"}
    for regime in ("flat", "sharp"):
        mine = [r for r in records if r["regime"] == regime and r["at_error_ids"]]
        wanted = float(mine[0]["squared_error"])
        ids = {record["estimator"]: float(record["at_error_ids"]) for record in mine}
        assert len(ids) == 10
        for record in mine:
            assert float(record["at_error_squared_error"]) == pytest.approx(wanted, rel=1e-4)
            assert float(record["many_norm_ratio"]) > 0
        assert ids["lower bound (common τ)"] <= ids["systematic"] <= ids["stratified"]
        assert ids["stratified"] < ids["multinomial (the paper)"]
    text = (tmp_path / "estimators.md").read_text()
    assert text.startswith("before\n<!-- tables of flat -->\n| estimator |")
    assert "old" not in text
    assert "\nafter\n" in text
    assert (tmp_path / "estimators.png").read_bytes()[:4] == b"\x89PNG"
