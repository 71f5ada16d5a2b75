"""The worker's side in a stand-in engine: the draws are those of `sl.sample` on the same logits."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from toy_model import PADDED, VOCABULARY, ToyModel

import sparselogits as sl
from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.vllm.draw_request import DrawRequest
from sparselogits.integrations.vllm.packed_draws import WindowDraws, unpack

OPTIONS = {"rounds": 6, "sampler": "systematic", "temperature": 1.5, "seed": 3}
RNG = np.random.default_rng(1)
PROMPTS = [RNG.integers(0, VOCABULARY, size).tolist() for size in (1, 9, 2, 30, 17)]


def parameters(vllm: ModuleType, prompt: list[int], index: int, **changes: Any) -> Any:
    """What the client sends for a prompt; its sequence_id is far from its index."""
    values: dict[str, Any] = {
        "sequence_id": 2**63 + 7 * index,
        "vocab_size": VOCABULARY,
        "captured": np.ones(len(prompt), np.bool_),
        "chunk_rows": 4,
        "sample": OPTIONS,
    }
    extra_args = DrawRequest(**(values | changes)).to_extra_args()
    return vllm.SamplingParams(
        max_tokens=1,
        temperature=0.0,
        prompt_logprob_token_ids=np.zeros((len(prompt) - 1, 1)) if len(prompt) > 1 else None,
        skip_reading_prefix_cache=True,
        extra_args=extra_args,
    )


def ask(
    vllm: ModuleType,
    model: ToyModel,
    prompts: list[list[int]] = PROMPTS,
    requests: list[Any] | None = None,
    **engine: Any,
) -> list[Any]:
    """What each prompt's RequestOutput brings."""
    if requests is None:
        requests = [parameters(vllm, prompt, index) for index, prompt in enumerate(prompts)]
    outputs = vllm.LLM(model, **engine).generate(
        [{"prompt_token_ids": prompt} for prompt in prompts], requests
    )
    return [output.prompt_token_id_logprobs for output in outputs]


def expected(prompt: list[int], index: int, **options: Any) -> sl.Draws[np.ndarray]:
    """One call of the library on the logits of the whole window."""
    keys = np.empty((len(prompt), 2), np.uint64)
    keys[:, 0] = 2**63 + 7 * index
    keys[:, 1] = np.arange(len(prompt))
    return sl.sample(ToyModel().logits(prompt), position_keys=keys, **(OPTIONS | options))


def assert_same(draws: WindowDraws, wanted: sl.Draws[np.ndarray]) -> None:
    np.testing.assert_array_equal(draws.lengths, np.diff(wanted.offsets))
    np.testing.assert_array_equal(draws.token_ids, wanted.token_ids)
    if wanted.counts is None:
        np.testing.assert_array_equal(draws.weights, wanted.weights)
    else:
        np.testing.assert_array_equal(draws.counts, wanted.counts)


@pytest.mark.parametrize("budget", [1000, 16, 7, 1])
def test_draws_are_those_of_the_library_however_the_prefill_is_cut(
    toy_vllm: ModuleType, budget: int
) -> None:
    answers = ask(toy_vllm, ToyModel(), max_num_batched_tokens=budget)
    for index, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        draws = unpack(answer)
        assert draws.sequence_id == 2**63 + 7 * index
        assert_same(draws, expected(prompt, index))


def test_position_t_has_the_distribution_of_token_t_plus_1(toy_vllm: ModuleType) -> None:
    """Said with a model that always knows what comes next: token + 1."""
    model = ToyModel()
    head = torch.full((PADDED, 2 * PADDED), 0.0)
    for token in range(VOCABULARY - 1):
        head[token + 1, PADDED + token] = 100.0
    model._head = head
    (answer,) = ask(toy_vllm, model, [[4, 5, 6, 7, 8]], max_num_batched_tokens=2)
    draws = unpack(answer)
    assert draws.token_ids.tolist() == [5, 6, 7, 8, 9]  # the last one lies beyond the prompt
    assert draws.lengths.tolist() == [1] * 5


@pytest.mark.parametrize(
    "options",
    [{"proposal_temperature": 0.7}, {"sampler": "multinomial"}, {"sampler": "stratified"}],
)
def test_every_way_of_sampling_passes_through(
    toy_vllm: ModuleType, options: dict[str, Any]
) -> None:
    requests = [parameters(toy_vllm, PROMPTS[3], 0, sample=OPTIONS | options)]
    (answer,) = ask(toy_vllm, ToyModel(), [PROMPTS[3]], requests)
    assert_same(unpack(answer), expected(PROMPTS[3], 0, **options))


def test_only_captured_positions_reach_the_head(toy_vllm: ModuleType) -> None:
    prompt = PROMPTS[3]
    captured = np.zeros(len(prompt), np.bool_)
    captured[[0, 3, 4, 5, 20, 29]] = True
    model = ToyModel()
    requests = [parameters(toy_vllm, prompt, 0, captured=captured)]
    (answer,) = ask(toy_vllm, model, [prompt], requests, max_num_batched_tokens=8)
    draws, whole = unpack(answer), expected(prompt, 0)
    assert sum(model.head_calls) == 6
    rows = np.split(whole.token_ids, whole.offsets[1:-1])
    np.testing.assert_array_equal(
        draws.token_ids, np.concatenate([rows[t] for t in np.flatnonzero(captured)])
    )


def test_no_more_rows_of_logits_exist_than_asked_for(toy_vllm: ModuleType) -> None:
    model = ToyModel()
    ask(toy_vllm, model, max_num_batched_tokens=1000)
    assert max(model.head_calls) == 4
    assert sum(model.head_calls) == sum(map(len, PROMPTS))


def test_requests_of_others_get_what_vllm_gives_them(toy_vllm: ModuleType) -> None:
    others = [
        toy_vllm.SamplingParams(
            max_tokens=1,
            skip_reading_prefix_cache=True,
            prompt_logprob_token_ids=np.zeros((8, 3)),
            extra_args=extra_args,
        )
        for extra_args in (None, {}, {"kv_transfer_params": {"sparselogits": 1}})
    ]
    plain = toy_vllm.SamplingParams(max_tokens=1, skip_reading_prefix_cache=True)
    prompts = [PROMPTS[1]] * 4 + [PROMPTS[4]]
    ours = parameters(toy_vllm, PROMPTS[4], 4)
    answers = ask(toy_vllm, ToyModel(), prompts, [*others, plain, ours], max_num_batched_tokens=10)
    for answer in answers[:3]:
        np.testing.assert_array_equal(answer, np.zeros((8, 3), np.float32))
    assert answers[3] is None
    assert_same(unpack(answers[4]), expected(PROMPTS[4], 4))


def test_a_preempted_request_starts_again(toy_vllm: ModuleType) -> None:
    answers = ask(toy_vllm, ToyModel(), max_num_batched_tokens=8, preempted={3: 3})
    for index, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        assert_same(unpack(answer), expected(prompt, index))


def test_an_aborted_request_leaves_nothing_behind(toy_vllm: ModuleType) -> None:
    module = importlib.import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    worker = module.PromptLogprobsWorker(1, torch.device("cpu"))
    before = {name: dict(value) for name, value in vars(worker).items()}
    worker.add_request("a", 0, parameters(toy_vllm, [1, 2, 3], 0))
    (ours,) = vars(worker).keys() - before.keys()
    assert "a" in vars(worker)[ours]
    worker.remove_request("a")
    assert vars(worker) == {**before, ours: {}}


class Flawed(ToyModel):
    """Spoils the logits of every position that has seen token 10."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self._change = change

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        logits = super().compute_logits(hidden)
        logits[hidden[:, 10] > 0] = self._change
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_unusable_logits_name_request_sequence_and_position(
    toy_vllm: ModuleType, value: float
) -> None:
    prompts = [[1, 2, 3], [0, 1, 2, 3, 4, 5, 10, 7, 8], [4, 5]]
    answers = ask(toy_vllm, Flawed(value), prompts, max_num_batched_tokens=5)
    with pytest.raises(
        InvalidArgumentError,
        match=rf"request 1, sequence {2**63 + 7}: the logits of position 6 hold NaN or \+inf",
    ):
        unpack(answers[1])
    assert_same(unpack(answers[0]), expected(prompts[0], 0))  # the engine goes on
    assert_same(unpack(answers[2]), expected(prompts[2], 2))


def test_minus_infinity_at_some_tokens_is_legal(toy_vllm: ModuleType) -> None:
    class Masked(ToyModel):
        def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
            logits = super().compute_logits(hidden)
            logits[:, 1:] = float("-inf")
            return logits

    (answer,) = ask(toy_vllm, Masked(), [[1, 2, 3]])
    assert unpack(answer).token_ids.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_head_that_is_not_float32_is_refused(toy_vllm: ModuleType, dtype: torch.dtype) -> None:
    class Rounded(ToyModel):
        def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
            return super().compute_logits(hidden).to(dtype)

    (answer,) = ask(toy_vllm, Rounded(), [[1, 2, 3]])
    with pytest.raises(InvalidArgumentError, match=f"{str(dtype)[6:]} logits.*head_dtype"):
        unpack(answer)


def test_a_head_narrower_than_the_vocabulary_is_refused(toy_vllm: ModuleType) -> None:
    requests = [parameters(toy_vllm, [1, 2], 0, vocab_size=PADDED + 1)]
    (answer,) = ask(toy_vllm, ToyModel(), [[1, 2]], requests)
    with pytest.raises(InvalidArgumentError, match=r"shape \(2, 13\) for 2 .* vocabulary of 14"):
        unpack(answer)


def test_after_a_failure_the_head_is_called_as_often_as_without(toy_vllm: ModuleType) -> None:
    """On tensor-parallel ranks each call is a collective: skipping one would hang the others."""
    prompts = [[10, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
    sound, flawed = ToyModel(), Flawed(float("nan"))
    ask(toy_vllm, sound, prompts, max_num_batched_tokens=5)
    ask(toy_vllm, flawed, prompts, max_num_batched_tokens=5)
    assert flawed.head_calls == sound.head_calls == [4, 1, 4, 1]


def test_a_rank_that_gets_no_logits_takes_part_and_answers_nothing(toy_vllm: ModuleType) -> None:
    class SecondRank(ToyModel):
        def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
            super().compute_logits(hidden)
            return None

    first, second = ToyModel(), SecondRank()
    ask(toy_vllm, first)
    assert ask(toy_vllm, second) == [None] * len(PROMPTS)
    assert second.head_calls == first.head_calls


def test_rows_that_the_engine_left_out_are_an_error(toy_vllm: ModuleType) -> None:
    """As a prefix cache would, if vLLM gave our requests one."""
    from sparselogits.integrations.vllm.prompt_draws import PromptDraws

    model, request = ToyModel(), DrawRequest(5, VOCABULARY, np.ones(6, np.bool_), 4, OPTIONS)
    late = PromptDraws("a", request)
    late.add(2, model.hidden([1, 2, 3, 4]), model.compute_logits)
    with pytest.raises(InvalidArgumentError, match=r"request a, sequence 5: .* 2, expected 0"):
        unpack(late.packed(6).numpy())
    early = PromptDraws("b", request)
    early.add(0, model.hidden([1, 2, 3, 4]), model.compute_logits)
    with pytest.raises(InvalidArgumentError, match="6 tokens, 4 rows"):
        unpack(early.packed(6).numpy())


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"sample": {"rounds": 0}}, "rounds must be from 1"),
        ({"sample": {"draws": 5}}, "keywords of sl.sample"),
        ({"sample": {"rounds": 5, "seed": "x"}}, "seed must be an integer"),
        ({"chunk_rows": 0}, "chunk_rows must be from 1"),
        ({"chunk_rows": 2**40}, "chunk_rows must be from 1 to 4096"),
        ({"vocab_size": -1}, "vocab_size must be from 1"),
        ({"captured": b""}, "captured must be 1 bytes"),
        ({"captured": "all"}, "captured must be 1 bytes"),
        ({"num_positions": 2}, "3 tokens, 3 rows of it were computed, and the mask has 2"),
        ({"sequence_id": None}, "sequence_id must be an integer"),
        ({"more": 1}, "must have the keys"),
    ],
)
def test_a_malformed_request_gets_an_error_and_the_engine_goes_on(
    toy_vllm: ModuleType, changed: dict[str, Any], said: str
) -> None:
    prompts = [[1, 2, 3], [4, 5]]
    requests = [parameters(toy_vllm, prompt, i) for i, prompt in enumerate(prompts)]
    requests[0].extra_args["sparselogits"].update(changed)
    bad, good = ask(toy_vllm, ToyModel(), prompts, requests, max_num_batched_tokens=2)
    with pytest.raises(InvalidArgumentError, match=f"request 0.*{said}"):
        unpack(bad)
    assert_same(unpack(good), expected(prompts[1], 1))
