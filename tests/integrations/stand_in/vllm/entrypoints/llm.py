"""An engine in one process: chunked prefill, preemption, and a toy model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.input_batch import InputBatch
from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker


class LLM:
    """Takes the toy model as its keyword; `settings` are what the client asks an engine for."""

    def __init__(
        self,
        model: Any,
        *,
        max_num_batched_tokens: int = 16,
        preempted: dict[int, int] | None = None,
        **settings: Any,
    ) -> None:
        self._model = model
        self._budget = max_num_batched_tokens
        self._preempted = dict(preempted or {})  # step → index of the request that loses its place
        self.vocab_size = model.rows
        self.seen: list[list[int]] = []
        config = {
            "model": "toy",
            "revision": None,
            "dtype": torch.bfloat16,
            "head_dtype": torch.float32,
            "quantization": None,
            "architecture": "ToyForCausalLM",
            "max_model_len": 64,
            "is_encoder_decoder": False,
            "is_diffusion": False,
        }
        cache = {"kv_sharing_fast_prefill": False, "cache_dtype": "auto"}
        engine = {"lora_config": None, "speculative_config": None, "use_v2_model_runner": True}
        for part in (config, cache, engine):
            part.update({name: settings.pop(name) for name in list(settings) if name in part})
        assert not settings, settings
        self.llm_engine = SimpleNamespace(
            vllm_config=SimpleNamespace(
                model_config=SimpleNamespace(**config, get_vocab_size=lambda: self.vocab_size),
                cache_config=SimpleNamespace(**cache),
                **engine,
            )
        )

    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        priority: Any = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[Any]:
        tokens = [prompt["prompt_token_ids"] for prompt in prompts]
        self.seen += tokens
        limit = self.llm_engine.vllm_config.model_config.max_model_len
        for ids, params in zip(tokens, sampling_params, strict=True):
            assert params.max_tokens == 1
            assert params.skip_reading_prefix_cache
            if not 0 < len(ids) < limit:
                raise ValueError(f"prompt of {len(ids)} tokens")
            scored = params.prompt_logprob_token_ids
            if scored is not None and (len(scored) != len(ids) - 1 or not scored.size):
                raise ValueError(f"{len(scored)} rows")
        travelled = run(self._model, tokens, sampling_params, self._budget, self._preempted)
        return [
            SimpleNamespace(
                prompt_token_ids=tokens[i],
                prompt_token_id_logprobs=travelled.get(str(i)),
            )
            for i in range(len(tokens))
        ]


def run(
    model: Any,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    budget: int,
    preempted: dict[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Prefills all prompts, `budget` tokens a step, then runs one step that only decodes."""
    worker = PromptLogprobsWorker(len(prompts), torch.device("cpu"))
    lengths = np.array([len(prompt) for prompt in prompts])
    computed = np.zeros(len(prompts), np.int64)
    order = np.arange(len(prompts))[::-1].copy()  # state i is not batch row i
    for i in range(len(prompts)):
        worker.add_request(str(i), int(order[i]), params[i])
    prompt_lens = np.zeros(len(prompts), np.int64)
    prompt_lens[order] = lengths
    travelled: dict[str, np.ndarray] = {}
    step = 0
    while True:
        victim = (preempted or {}).pop(step, None)
        if victim is not None:
            worker.remove_request(str(victim))
            worker.add_request(str(victim), int(order[victim]), params[victim])
            computed[victim] = 0
        last = bool((computed >= lengths).all())
        left, scheduled = budget, {}
        for i in range(len(prompts)):
            take = 1 if last else min(left, int(lengths[i] - computed[i]))
            if take > 0:
                scheduled[i] = take
                left -= 0 if last else take
        rows = list(scheduled)
        counts = np.array([scheduled[i] for i in rows])
        batch = InputBatch(
            req_ids=[str(i) for i in rows],
            idx_mapping_np=order[rows],
            num_scheduled_tokens=counts,
            query_start_loc_np=np.concatenate([[0], np.cumsum(counts)]),
            prefill_len_np=lengths[rows],
            num_computed_prefill_tokens_np=computed[rows].copy(),
        )
        hidden = torch.cat(
            [model.hidden([*prompts[i], 0])[computed[i] : computed[i] + scheduled[i]] for i in rows]
        )
        found = worker.compute_prompt_token_id_logprobs(
            model.compute_logits, hidden, batch, prompt_lens
        )
        assert not last or not found, "draws after the end of a prompt"
        assert not travelled.keys() & found.keys(), "a request answered twice"
        travelled.update({name: tensor.numpy() for name, tensor in found.items()})
        if last:
            return travelled
        computed[rows] += counts
        step += 1
