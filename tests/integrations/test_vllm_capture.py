"""`capture_with_vllm` end to end in a stand-in engine: what a cache holds."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_model import VOCABULARY, ToyModel
from vllm_captures import IDS, OPTIONS, WINDOWS, assert_holds, capture

import sparselogits as sl
from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.vllm import capture_with_vllm, engine_facts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sampler": "multinomial", "temperature": 0.5},
        {"proposal_temperature": 1.5},
        {"offset": 0.5},
    ],
)
def test_the_cache_holds_what_the_library_draws_from_the_same_logits(
    toy_vllm: ModuleType, tmp_path: Path, options: dict[str, Any]
) -> None:
    cache = capture(toy_vllm, tmp_path / "cache", batch_windows=2, **options)
    assert sorted(cache.sequence_ids.tolist()) == sorted(IDS)
    for tokens, sequence_id in zip(WINDOWS, IDS, strict=True):
        assert_holds(cache, tokens, sequence_id, **options)
    cache.verify()


def test_batches_and_steps_of_the_engine_change_nothing(
    toy_vllm: ModuleType, tmp_path: Path
) -> None:
    a = capture(toy_vllm, tmp_path / "a", batch_windows=1, chunk_rows=3)
    engine = {"max_num_batched_tokens": 5, "preempted": {4: 3}}
    b = capture(toy_vllm, tmp_path / "b", batch_windows=99, engine=engine)
    for index in range(len(a)):
        for name in ("offsets", "token_ids", "counts", "input_ids"):
            np.testing.assert_array_equal(getattr(a[index], name), getattr(b[index], name))


def test_masked_positions_are_empty(toy_vllm: ModuleType, tmp_path: Path) -> None:
    mask = [np.arange(len(tokens)) % 3 == 1 for tokens in WINDOWS]
    cache = capture(toy_vllm, tmp_path / "cache", targets_mask=mask)
    whole = capture(toy_vllm, tmp_path / "whole")
    assert cache.metadata["targets_mask"] == "given"
    for index, captured in enumerate(mask):
        part, full = cache[index], whole[index]
        lengths = np.diff(full.offsets)
        np.testing.assert_array_equal(np.diff(part.offsets), np.where(captured, lengths, 0))
        kept = np.repeat(captured, lengths)
        np.testing.assert_array_equal(part.token_ids, full.token_ids[kept])
        np.testing.assert_array_equal(part.counts, full.counts[kept])


def test_windows_that_need_no_draws_are_not_sent(toy_vllm: ModuleType, tmp_path: Path) -> None:
    engine = toy_vllm.LLM(ToyModel())
    windows = [np.array([], np.int64), np.array([3, 4])]
    mask = [np.array([], np.bool_), np.array([False, False])]
    cache = capture_with_vllm(
        engine, windows, tmp_path / "cache", targets_mask=mask, progress=False, **OPTIONS
    )
    assert engine.seen == []
    assert [len(cache[i].offsets) - 1 for i in range(2)] == [0, 2]


def test_a_second_run_goes_on_where_the_first_ended(toy_vllm: ModuleType, tmp_path: Path) -> None:
    capture(toy_vllm, tmp_path / "cache", WINDOWS[:3], sequence_ids=IDS[:3])
    engine = toy_vllm.LLM(ToyModel())
    cache = capture_with_vllm(
        engine,
        WINDOWS,
        tmp_path / "cache",
        sequence_ids=IDS,
        vocab_size=VOCABULARY,
        progress=False,
        **OPTIONS,
    )
    assert engine.seen == [window.tolist() for window in WINDOWS[3:]]
    for tokens, sequence_id in zip(WINDOWS, IDS, strict=True):
        assert_holds(cache, tokens, sequence_id)


def test_what_was_finished_before_a_failure_is_kept(toy_vllm: ModuleType, tmp_path: Path) -> None:
    class Flawed(ToyModel):
        def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
            logits = super().compute_logits(hidden)
            logits[hidden[:, 10] > 0] = float("nan")
            return logits

    windows = [np.array([1, 2]), np.array([3, 4]), np.array([5, 10])]
    with pytest.raises(InvalidArgumentError, match="sequence 2: the logits of position 1 hold NaN"):
        capture(
            toy_vllm,
            tmp_path / "cache",
            windows,
            model=Flawed(),
            batch_windows=2,
            sequence_ids=None,
        )
    sl.recover(tmp_path / "cache")
    cache = sl.open(tmp_path / "cache")
    assert cache.sequence_ids.tolist() == [0, 1]
    assert_holds(cache, windows[1], 1)


def test_metadata_says_what_teacher_and_engine_were(toy_vllm: ModuleType, tmp_path: Path) -> None:
    cache = capture(
        toy_vllm,
        tmp_path / "cache",
        engine={"quantization": "fp8", "revision": "abc"},
        metadata={"teacher": "Toy 1", "mine": "yes"},
    )
    facts = cache.metadata
    told = {
        "teacher": "Toy 1",
        "mine": "yes",
        "teacher_class": "ToyForCausalLM",
        "teacher_dtype": "bfloat16",
        "teacher_revision": "abc",
        "teacher_quantization": "fp8",
        "kv_cache_dtype": "auto",
        "head_dtype": "float32",
        "seed": "11",
        "targets_mask": "none",
        "engine": "vLLM 0.33.0, sparselogits plugin",
    }
    assert {key: facts[key] for key in told} == told


def test_metadata_has_the_keys_of_the_other_capture(toy_vllm: ModuleType) -> None:
    pytest.importorskip("transformers")
    from sparselogits.capture.provenance import capture_metadata

    class HuggingFaceModel(torch.nn.Linear):
        config = SimpleNamespace(_name_or_path="x")

    plain = capture_metadata(HuggingFaceModel(1, 1), 0, False, None)
    ours = engine_facts.engine_metadata(toy_vllm.LLM(ToyModel()), 0, False, None)
    assert plain.keys() - ours.keys() == set()
    for key in ("bos_rule", "head_dtype", "seed", "targets_mask", "torch_version"):
        assert ours[key] == plain[key]


def test_the_source_of_the_windows_describes_itself(toy_vllm: ModuleType) -> None:
    engine = toy_vllm.LLM(ToyModel())
    facts = engine_facts.engine_metadata(
        engine,
        0,
        False,
        {"teacher": "t"},
        source={"token_source": "a.npy", "bos_rule": "one a document"},
    )
    assert facts["token_source"] == "a.npy"
    assert facts["bos_rule"] == "one a document"
    with pytest.raises(InvalidArgumentError, match="seed"):
        engine_facts.engine_metadata(engine, 0, False, None, source={"seed": "9"})


def test_the_vocabulary_is_that_of_the_tokenizer_or_else_of_the_engine(
    toy_vllm: ModuleType,
) -> None:
    engine = toy_vllm.LLM(ToyModel())
    assert engine_facts.engine_vocab_size(engine, None, None) == 13
    assert engine_facts.engine_vocab_size(engine, range(12), None) == 12
    assert engine_facts.engine_vocab_size(engine, range(12), 11) == 11
