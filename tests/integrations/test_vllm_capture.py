"""`capture_with_vllm` end to end in a stand-in engine: what a cache holds, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_model import VOCABULARY, ToyModel
from vllm_tree import set_version

import sparselogits as sl
from sparselogits.errors import (
    FingerprintMismatchError,
    InvalidArgumentError,
    MismatchError,
    VocabularyMismatchError,
)
from sparselogits.integrations.vllm import capture_with_vllm, client, engine_facts, plugin

RNG = np.random.default_rng(2)
WINDOWS = [RNG.integers(0, VOCABULARY, size) for size in (5, 0, 1, 63, 12)]
IDS = [7, 2**63 + 1, 0, 4, 2**64 - 1]
OPTIONS: dict[str, Any] = {"rounds": 8, "sampler": "systematic", "seed": 11}


def capture(vllm: ModuleType, path: Path, windows: Any = WINDOWS, **options: Any) -> sl.Cache:
    engine = vllm.LLM(options.pop("model", None) or ToyModel(), **options.pop("engine", {}))
    values = {"sequence_ids": IDS, "vocab_size": VOCABULARY, "progress": False}
    return capture_with_vllm(engine, windows, path, **(OPTIONS | values | options))


def assert_holds(cache: sl.Cache, tokens: np.ndarray, sequence_id: int, **options: Any) -> None:
    """The sequence is one call of the library on the logits of the whole window."""
    found = cache.read(cache.sequence_ids.tolist().index(sequence_id))
    assert found.input_ids is not None
    assert found.input_ids.tolist() == tokens.tolist()
    if not len(tokens):
        assert len(found.offsets) == 1
        return
    keys = np.empty((len(tokens), 2), np.uint64)
    keys[:, 0] = sequence_id
    keys[:, 1] = np.arange(len(tokens))
    logits = ToyModel().logits(tokens.tolist())
    wanted = sl.sample(logits, position_keys=keys, **(OPTIONS | options))
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_array_equal(found.token_ids, wanted.token_ids)
    np.testing.assert_array_equal(found.weights, wanted.weights)


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


def test_a_second_run_with_other_tokens_or_another_seed_is_refused(
    toy_vllm: ModuleType, tmp_path: Path
) -> None:
    capture(toy_vllm, tmp_path / "cache")
    changed = [WINDOWS[0][::-1].copy(), *WINDOWS[1:]]
    with pytest.raises(FingerprintMismatchError, match="window 0"):
        capture(toy_vllm, tmp_path / "cache", changed)
    with pytest.raises(MismatchError, match="seed"):
        capture(toy_vllm, tmp_path / "cache", seed=12)


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


def test_metadata_cannot_contradict_a_fact(toy_vllm: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"metadata\['head_dtype'\] is 'bfloat16'"):
        capture(toy_vllm, tmp_path / "cache", metadata={"head_dtype": "bfloat16"})
    with pytest.raises(InvalidArgumentError, match="must map str to str"):
        capture(toy_vllm, tmp_path / "cache", metadata={"layers": 3})
    assert not (tmp_path / "cache").exists()


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


@pytest.mark.parametrize(
    "setting, said",
    [
        ({"head_dtype": torch.bfloat16}, "head_dtype is bfloat16.*hf_overrides"),
        ({"use_v2_model_runner": False}, "V1 model runner"),
        ({"kv_sharing_fast_prefill": True}, "kv_sharing_fast_prefill"),
        ({"speculative_config": object()}, "speculative_config"),
        ({"lora_config": object()}, "lora_config"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"is_diffusion": True}, "is_diffusion"),
    ],
)
def test_an_engine_that_is_not_fit_is_refused_by_its_setting(
    toy_vllm: ModuleType, tmp_path: Path, setting: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        capture(toy_vllm, tmp_path / "cache", engine=setting)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"seed": -1}, "seed must be from 0"),
        ({"seed": True}, "seed must be an integer"),
        ({"sampler": "gumbel"}, "sampler must be one of"),
        ({"sampler": "multinomial", "offset": 0.5}, "systematic sampler alone"),
        ({"batch_windows": 0}, "batch_windows must be from 1"),
        ({"chunk_rows": 0}, "chunk_rows must be from 1"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    toy_vllm: ModuleType, tmp_path: Path, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        capture(toy_vllm, tmp_path / "cache", **wrong)
    assert not (tmp_path / "cache").exists()


def test_a_window_needs_one_place_less_than_the_engine_has(
    toy_vllm: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgumentError, match=r"63 tokens, more than .* 62"):
        capture(toy_vllm, tmp_path / "cache", engine={"max_model_len": 63})


def test_a_vocabulary_larger_than_the_head_is_refused(toy_vllm: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(VocabularyMismatchError, match=r"14 tokens, .* only 13 rows"):
        capture(toy_vllm, tmp_path / "cache", vocab_size=14)


def test_the_vocabulary_is_that_of_the_tokenizer_or_else_of_the_engine(
    toy_vllm: ModuleType,
) -> None:
    engine = toy_vllm.LLM(ToyModel())
    assert engine_facts.engine_vocab_size(engine, None, None) == 13
    assert engine_facts.engine_vocab_size(engine, range(12), None) == 12
    assert engine_facts.engine_vocab_size(engine, range(12), 11) == 11


def test_workers_without_the_plugin_are_found_out(
    toy_vllm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = __import__("vllm.v1.worker.gpu.sample.prompt_logprob", fromlist=["x"])
    worker = module.PromptLogprobsWorker
    for name in ("add_request", "remove_request", "compute_prompt_token_id_logprobs"):
        monkeypatch.setattr(worker, name, getattr(worker, name).__wrapped__)
    for windows in (WINDOWS[3:4], WINDOWS[2:3]):  # scores of vLLM; for one token, nothing
        with pytest.raises(InvalidArgumentError, match="workers run without the plugin"):
            capture(toy_vllm, tmp_path / f"c{len(windows[0])}", windows, sequence_ids=[1])
    assert plugin.ENABLE_VARIABLE == "SPARSELOGITS_VLLM"


def test_an_answer_for_another_window_is_refused(
    toy_vllm: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = toy_vllm.LLM.generate

    def shuffled(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return generate(self, *args, **kwargs)[::-1]

    monkeypatch.setattr(toy_vllm.LLM, "generate", shuffled)
    with pytest.raises(InvalidArgumentError, match=r"sequence 7 .* answered with sequence"):
        capture(toy_vllm, tmp_path / "cache")
    alike = [np.array([1, 2, 3]), np.array([4, 5, 6])]
    with pytest.raises(InvalidArgumentError, match=r"sequence 0 .* answered with sequence 1"):
        capture(toy_vllm, tmp_path / "alike", alike, sequence_ids=None)


def test_an_installation_that_changed_under_a_running_engine_is_refused(
    toy_vllm: ModuleType, vllm_tree: Path, tmp_path: Path
) -> None:
    set_version(vllm_tree, "0.34.0")
    with pytest.raises(MismatchError, match="'version' does not hold"):
        capture(toy_vllm, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_windows_of_several_documents_are_refused(toy_vllm: ModuleType) -> None:
    config = sl.CacheConfig(vocab_size=VOCABULARY)
    engine = client._Engine(toy_vllm.LLM(ToyModel()), config, 0, 0.0, 4)
    window = SimpleNamespace(
        index=6,
        sequence_id=1,
        tokens=np.array([1, 2, 3]),
        captured=np.ones(3, np.bool_),
        document_starts=np.array([0, 2]),
    )
    with pytest.raises(InvalidArgumentError, match="window 6 has several documents"):
        engine.draws([window])  # type: ignore[list-item]
    window.document_starts = np.array([0])
    assert len(engine.draws([window])) == 1  # type: ignore[list-item]
