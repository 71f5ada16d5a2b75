"""Opt-in: the plugin in the real classes of the pinned release, from request to RequestOutput.

Needs an importable vLLM (a GPU is not used) and SPARSELOGITS_VLLM_IMPORT=1. What it leaves out is
the engine around these classes: scheduler, model runner, model, and the copy from the GPU.
"""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_model import VOCABULARY, ToyModel

import sparselogits as sl
from sparselogits.capture.windows import Window
from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.vllm import client, plugin
from sparselogits.integrations.vllm.packed_draws import unpack

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SPARSELOGITS_VLLM_IMPORT") != "1",
        reason="opt-in: SPARSELOGITS_VLLM_IMPORT=1 with an importable vLLM of the pinned release",
    ),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]

CONFIG = sl.CacheConfig(vocab_size=VOCABULARY, rounds=9, sampler="systematic")
TOKENS = np.random.default_rng(4).integers(0, VOCABULARY, 300)
SEQUENCE = 2**64 - 5


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(plugin.ENABLE_VARIABLE, "1")
    plugin.register()
    if not torch.cuda.is_available():
        monkeypatch.setattr("vllm.utils.torch_utils.PIN_MEMORY", False)
    module = importlib.import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    return module.PromptLogprobsWorker(4, torch.device("cpu"))


def sent(window: Window) -> Any:
    """The request's SamplingParams, as they arrive in the engine's process."""
    engine = client._Engine(SimpleNamespace(), CONFIG, 17, 0.0, 64)
    parameters = engine._parameters(window).clone()
    serial = importlib.import_module("vllm.v1.serial_utils")
    kind = importlib.import_module("vllm.sampling_params").SamplingParams
    return serial.MsgpackDecoder(kind).decode(serial.MsgpackEncoder().encode(parameters))


def step(worker: Any, model: ToyModel, tokens: np.ndarray, start: int, count: int) -> Any:
    """One step in which the request has the second place of the batch, and state 3."""
    names = ("other", "ours")
    batch = SimpleNamespace(
        req_ids=list(names),
        idx_mapping_np=np.array([0, 3]),
        num_scheduled_tokens=np.array([2, count]),
        query_start_loc_np=np.array([0, 2, 2 + count]),
        prefill_len_np=np.array([9, len(tokens)]),
        num_computed_prefill_tokens_np=np.array([0, start]),
    )
    hidden = model.hidden(tokens.tolist())[start : start + count]
    hidden = torch.cat([torch.ones(2, hidden.shape[1]), hidden])
    lengths = np.array([9, 0, 0, len(tokens)])
    return worker.compute_prompt_token_id_logprobs(model.compute_logits, hidden, batch, lengths)


def received(tensor: torch.Tensor) -> Any:
    """What a RequestOutput brings of a tensor that the worker returned."""
    engine = importlib.import_module("vllm.v1.engine")
    serial = importlib.import_module("vllm.v1.serial_utils")
    logprobs = importlib.import_module("vllm.v1.engine.logprobs")
    output = engine.EngineCoreOutput("ours", [1], prompt_token_id_logprobs=tensor)
    message = serial.MsgpackEncoder().encode(engine.EngineCoreOutputs(outputs=[output]))
    decoded = serial.MsgpackDecoder(engine.EngineCoreOutputs).decode([bytes(b) for b in message])
    processor = logprobs.LogprobsProcessor(
        tokenizer=None,
        cumulative_logprob=None,
        logprobs=None,
        prompt_logprobs=None,
        num_logprobs=None,
        num_prompt_logprobs=None,
    )
    processor.update_from_output(decoded.outputs[0])
    return processor.pop_prompt_token_id_logprobs()


@pytest.mark.parametrize("length", [1, 2, 300])
def test_draws_reach_the_client_through_the_real_classes(worker: Any, length: int) -> None:
    tokens, model = TOKENS[:length], ToyModel()
    captured = np.arange(length) % 5 != 3
    worker.add_request("ours", 3, sent(Window(0, SEQUENCE, tokens, captured)))
    cut = length // 2
    if cut:
        assert step(worker, model, tokens, 0, cut) == {}
    (answer,) = step(worker, model, tokens, cut, length - cut).values()
    draws = unpack(received(answer))
    positions = np.flatnonzero(captured)
    keys = np.stack([np.full(len(positions), SEQUENCE, np.uint64), positions.astype(np.uint64)], 1)
    wanted = sl.sample(
        model.logits(tokens.tolist())[positions],
        rounds=9,
        sampler="systematic",
        seed=17,
        position_keys=keys,
    )
    assert draws.sequence_id == SEQUENCE
    np.testing.assert_array_equal(draws.lengths, np.diff(wanted.offsets))
    np.testing.assert_array_equal(draws.token_ids, wanted.token_ids)
    np.testing.assert_array_equal(draws.counts, wanted.counts)


def test_a_failure_reaches_the_client_through_the_real_classes(worker: Any) -> None:
    class Broken(ToyModel):
        def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
            logits = super().compute_logits(hidden)
            logits[1] = float("nan")
            return logits

    tokens = TOKENS[:5]
    worker.add_request("ours", 3, sent(Window(0, SEQUENCE, tokens, np.ones(5, np.bool_))))
    (answer,) = step(worker, Broken(), tokens, 0, 5).values()
    with pytest.raises(InvalidArgumentError, match=f"sequence {SEQUENCE}.*position 1 hold NaN"):
        unpack(received(answer))


def test_a_request_of_others_is_scored_by_vllm(worker: Any) -> None:
    parameters = importlib.import_module("vllm").SamplingParams(max_tokens=1)
    worker.add_request("ours", 3, parameters)
    assert step(worker, ToyModel(), TOKENS[:5], 0, 5) == {}


def test_vllm_skips_its_prefix_cache_for_our_requests(worker: Any) -> None:
    parameters = sent(Window(0, SEQUENCE, TOKENS, np.ones(300, np.bool_)))
    assert parameters.skip_reading_prefix_cache is True
    assert parameters.prompt_logprob_token_ids.shape == (299, 1)
    assert parameters.max_tokens == 1
