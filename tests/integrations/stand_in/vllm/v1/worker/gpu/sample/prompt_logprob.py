"""The class that the plugin wraps. It answers fixed-id scoring with zeros."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vllm.sampling_params import SamplingParams
from vllm.v1.worker.gpu.input_batch import InputBatch


class PromptLogprobsWorker:
    def __init__(
        self, max_num_reqs: int, device: torch.device, logprobs_mode: str = "raw_logprobs"
    ):
        self.token_id_scores: dict[str, np.ndarray] = {}

    def add_request(self, req_id: str, req_idx: int, sampling_params: SamplingParams):
        if sampling_params.prompt_logprob_token_ids is not None:
            self.token_id_scores[req_id] = sampling_params.prompt_logprob_token_ids

    def remove_request(self, req_id: str) -> None:
        self.token_id_scores.pop(req_id, None)

    def compute_prompt_token_id_logprobs(
        self,
        logits_fn: Callable[[torch.Tensor], torch.Tensor],
        hidden_states: torch.Tensor,
        input_batch: InputBatch,
        prompt_lens: np.ndarray,
    ) -> dict[str, torch.Tensor]:
        ends = input_batch.num_computed_prefill_tokens_np + input_batch.num_scheduled_tokens
        complete = ends >= prompt_lens[input_batch.idx_mapping_np]
        return {
            req_id: torch.zeros(self.token_id_scores.pop(req_id).shape)
            for req_id, done in zip(input_batch.req_ids, complete, strict=True)
            if done and req_id in self.token_id_scores
        }
