"""What `capture_with_vllm` refuses, and by which name."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_model import VOCABULARY, ToyModel
from vllm_captures import WINDOWS, capture
from vllm_tree import set_version

import sparselogits as sl
from sparselogits.errors import (
    FingerprintMismatchError,
    InvalidArgumentError,
    MismatchError,
    VocabularyMismatchError,
)
from sparselogits.integrations.vllm import client, plugin


def test_a_second_run_with_other_tokens_or_another_seed_is_refused(
    toy_vllm: ModuleType, tmp_path: Path
) -> None:
    capture(toy_vllm, tmp_path / "cache")
    changed = [WINDOWS[0][::-1].copy(), *WINDOWS[1:]]
    with pytest.raises(FingerprintMismatchError, match="window 0"):
        capture(toy_vllm, tmp_path / "cache", changed)
    with pytest.raises(MismatchError, match="seed"):
        capture(toy_vllm, tmp_path / "cache", seed=12)


def test_metadata_cannot_contradict_a_fact(toy_vllm: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"metadata\['head_dtype'\] is 'bfloat16'"):
        capture(toy_vllm, tmp_path / "cache", metadata={"head_dtype": "bfloat16"})
    with pytest.raises(InvalidArgumentError, match="must map str to str"):
        capture(toy_vllm, tmp_path / "cache", metadata={"layers": 3})
    assert not (tmp_path / "cache").exists()


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
