"""Captures with a real vLLM engine on the CPU and prints what came out, as JSON.

Usage: capture_script.py FOLDER DTYPE ENGINE_ARGUMENTS_AS_JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import sparselogits as sl
from sparselogits.integrations.vllm import capture_with_vllm, client, enable

VOCABULARY = 97
LENGTHS = (1, 2, 47, 48, 49, 100, 127, 5, 60, 90, 33, 127, 127, 127, 120)
OPTIONS: dict[str, Any] = {"rounds": 24, "sampler": "systematic", "seed": 5, "progress": False}


def tiny_teacher(folder: Path, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # random weights of the usual size make all distributions flat
    model.to(dtype).save_pretrained(folder)
    return model


def windows() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    made = [rng.integers(0, VOCABULARY - 1, length) for length in LENGTHS]
    made[8][:40] = made[5][:40]  # something for the prefix cache
    return made


def moved_draws(a: sl.Cache, b: sl.Cache) -> int:
    """How many draws would have to move to make two caches equal."""
    return sum(int(np.abs(dense(a[index]) - dense(b[index])).sum()) // 2 for index in range(len(a)))


def dense(sequence: sl.SparseLogits) -> np.ndarray:
    """(S, V) counts."""
    counts = np.zeros((len(sequence.offsets) - 1, VOCABULARY), np.int64)
    rows = np.repeat(np.arange(len(counts)), np.diff(sequence.offsets))
    counts[rows, sequence.token_ids] = sequence.counts
    return counts


def worst_count(vllm: Any, llm: Any, cache: sl.Cache, prompts: list[np.ndarray]) -> float:
    """How far a count is outside of floor(Np) ... ceil(Np) for vLLM's own log-probabilities."""
    parameters = vllm.SamplingParams(
        max_tokens=1, temperature=0.0, detokenize=False, prompt_logprobs=-1
    )
    worst = 0.0
    for index, prompt in enumerate(prompts):
        (output,) = llm.generate(
            [{"prompt_token_ids": prompt.tolist()}], parameters, use_tqdm=False
        )
        counts = dense(cache[index])
        assert output.prompt_logprobs[0] is None
        for t, row in enumerate(output.prompt_logprobs[1:]):  # of token t + 1, given those up to t
            assert len(row) == VOCABULARY
            expected = np.zeros(VOCABULARY)
            for token, entry in row.items():
                expected[token] = OPTIONS["rounds"] * np.exp(entry.logprob)
            low, high = np.floor(expected - 1e-3), np.ceil(expected + 1e-3)
            worst = max(worst, *(low - counts[t]), *(counts[t] - high))
    return float(worst)


def refusals(llm: Any, folder: Path) -> list[str]:
    """What is said of a NaN, twice: the engine must have survived the first."""
    engine = llm.llm_engine.engine_core.engine_core
    model = engine.model_executor.driver_worker.model_runner.model
    with torch.no_grad():
        model.model.embed_tokens.weight[VOCABULARY - 1] = float("nan")
    bad = [np.array([1, 2, 3]), np.array([4, 5, VOCABULARY - 1, 7]), np.array([8, 9])]
    said = []
    for _ in range(2):
        try:
            capture_with_vllm(llm, bad, folder / "nan", **OPTIONS)
        except sl.InvalidArgumentError as error:
            said.append(str(error))
    return said


def rounded_head(llm: Any, folder: Path) -> list[str]:
    """What client and worker say of an engine whose head computes in bfloat16."""
    said = []
    for _ in range(2):
        try:
            capture_with_vllm(llm, [np.array([1, 2, 3])], folder / "rounded", **OPTIONS)
        except sl.InvalidArgumentError as error:
            said.append(str(error))
        client.check_engine = lambda llm: None  # as if the client had not looked
    return said


def main() -> None:
    folder, dtype, arguments = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    teacher = tiny_teacher(folder / "teacher", getattr(torch, dtype))
    enable()
    import vllm
    from vllm.v1.core.sched.scheduler import Scheduler

    preemptions = []
    preempt = Scheduler._preempt_request

    def counting(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        preemptions.append(request.num_computed_tokens)
        return preempt(self, request, *args, **kwargs)

    Scheduler._preempt_request = counting
    llm = vllm.LLM(
        str(folder / "teacher"),
        dtype=dtype,
        skip_tokenizer_init=True,
        max_model_len=128,
        max_num_seqs=4,
        max_logprobs=-1,
        enforce_eager=True,
        compilation_config={"custom_ops": ["none"]},
        **({"kv_cache_memory_bytes": 1 << 24, "max_num_batched_tokens": 48} | arguments),
    )
    report: dict[str, Any] = {}
    if "hf_overrides" not in arguments:
        report["refused"] = rounded_head(llm, folder)
    else:
        prompts = windows()
        first = capture_with_vllm(llm, prompts, folder / "first", chunk_rows=7, **OPTIONS)
        again = capture_with_vllm(llm, prompts, folder / "again", batch_windows=3, **OPTIONS)
        plain = sl.capture(teacher, prompts, folder / "plain", **OPTIONS)
        report["positions"] = first.num_positions
        report["moved_between_captures"] = moved_draws(first, again)
        report["moved_from_hugging_face"] = moved_draws(first, plain)
        report["worst_count"] = worst_count(vllm, llm, first, prompts)
        report["preempted_at"] = preemptions
        if "one process" in sys.argv:
            report["refused"] = refusals(llm, folder)
    print("REPORT " + json.dumps(report))


if __name__ == "__main__":
    main()
