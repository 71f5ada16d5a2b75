"""eval_loss is the mean over rows, and metrics see what Hugging Face's own would."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import LENGTHS, SparseKDTrainer, arguments, dense_loss
from tiny import VOCABULARY, rows_of, student, tokens_of, write_cache

from sparselogits import InvalidArgumentError
from sparselogits.integrations.transformers import SparseLogitCollator, cache_dataset


def evaluator(path: Any, source: str, **arguments_: Any) -> SparseKDTrainer:
    """A trainer that evaluates the whole cache in batches of 3: the last one is smaller."""
    cache = write_cache(path / "cache", LENGTHS)
    args = arguments(path / "out", per_device_eval_batch_size=3)
    data = cache_dataset(args, cache, evaluation=True) if source == "cache" else rows_of(cache)
    run = SparseKDTrainer(
        student(), args, eval_dataset=data, data_collator=SparseLogitCollator(cache), **arguments_
    )
    run.cache = cache
    return run


@pytest.mark.parametrize("source", ["cache", "rows"])
def test_eval_loss_is_the_mean_over_all_rows(tmp_path, source):
    run = evaluator(tmp_path, source)
    found = run.evaluate()
    expected = dense_loss(run.model, run.cache, range(8)).item()
    assert found["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert run.evaluate()["eval_loss"] == found["eval_loss"]


def test_named_evaluation_datasets_are_kept_apart(tmp_path):
    run = evaluator(tmp_path, "cache")
    run.eval_dataset = {"all": run.eval_dataset, "first": rows_of(run.cache)[:3]}
    found = run.evaluate()
    first = dense_loss(run.model, run.cache, range(3)).item()
    assert found["eval_first_loss"] == pytest.approx(first, abs=1e-5)
    assert found["eval_all_loss"] != pytest.approx(first, abs=1e-2)


@pytest.mark.parametrize("source", ["cache", "rows"])
def test_metrics_get_logits_and_labels_that_are_not_shifted(tmp_path, source):
    seen = {}

    def metrics(prediction: Any) -> dict[str, float]:
        seen["logits"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {"count": float(len(prediction.label_ids))}

    run = evaluator(tmp_path, source, compute_metrics=metrics)
    found = run.evaluate()
    assert found["eval_count"] == 8
    assert found["eval_loss"] == pytest.approx(
        dense_loss(run.model, run.cache, range(8)).item(), abs=1e-5
    )
    for index, length in enumerate(LENGTHS):
        ids = tokens_of(index, length)
        labels = seen["labels"][index].tolist()
        assert labels == [-100, *ids[1:].tolist(), *[-100] * (len(labels) - length)]
        with torch.no_grad():
            logits = run.model(input_ids=torch.from_numpy(ids).long()[None]).logits[0]
        found_logits = torch.from_numpy(seen["logits"][index][:length])
        torch.testing.assert_close(found_logits, logits, atol=1e-5, rtol=0)
    assert seen["logits"].shape[-1] == VOCABULARY


def test_predict_takes_a_dataset_of_its_own(tmp_path):
    run = evaluator(tmp_path, "cache")
    output = run.predict(run.eval_dataset)
    assert output.predictions.shape[0] == 8
    assert output.metrics["test_loss"] == pytest.approx(run.evaluate()["eval_loss"], abs=1e-6)


def test_an_evaluation_without_any_target_is_refused(tmp_path):
    run = evaluator(tmp_path, "rows")
    row = {**rows_of(run.cache)[0]}
    row["labels"] = [-100] * len(row["input_ids"])
    with pytest.raises(InvalidArgumentError, match="no row with a target"):
        run.evaluate([row])
