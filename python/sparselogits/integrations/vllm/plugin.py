"""The plugin that vLLM loads in each of its processes: entry point of `vllm.general_plugins`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sparselogits.errors import InvalidArgumentError
from sparselogits.integrations.vllm.assumptions import check_assumptions, check_unpatched
from sparselogits.integrations.vllm.draw_request import DrawRequest
from sparselogits.integrations.vllm.packed_draws import pack_failure
from sparselogits.integrations.vllm.prompt_draws import LogitsFunction, PromptDraws

if TYPE_CHECKING:
    import torch

ENABLE_VARIABLE = "SPARSELOGITS_VLLM"
_INSTALLED = "_sparselogits_installed"
_REQUESTS = "_sparselogits_requests"


def enable() -> None:
    """Switches the plugin on for engines that this process starts from now on.

    Raises:
        MismatchError: The installed vLLM is not the one that the plugin knows.
    """
    os.environ[ENABLE_VARIABLE] = "1"  # the engine's other processes inherit it
    register()


def register() -> None:
    """What vLLM calls at start: wraps its prompt-logprob worker. Calling it again does nothing.

    Without `enable()`, or SPARSELOGITS_VLLM=1 in the environment, it does nothing: that
    sparselogits is installed must change no engine and refuse no release of vLLM.

    Raises:
        MismatchError: The installed vLLM is not the one that the plugin knows. The engine does
            not start.
    """
    if os.environ.get(ENABLE_VARIABLE) != "1":
        return
    check_assumptions()
    module = import_module("vllm.v1.worker.gpu.sample.prompt_logprob")
    install(module.PromptLogprobsWorker)


def install(worker_class: Any) -> None:
    """Wraps the three methods that see a request begin, end, and its hidden states.

    Raises:
        MismatchError: Another plugin was there first.
    """
    if worker_class.__dict__.get(_INSTALLED, False):
        return
    check_unpatched(worker_class)
    worker_class.add_request = _adding(worker_class.add_request)
    worker_class.remove_request = _removing(worker_class.remove_request)
    worker_class.compute_prompt_token_id_logprobs = _drawing(
        worker_class.compute_prompt_token_id_logprobs
    )
    setattr(worker_class, _INSTALLED, True)


def _adding(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def add_request(self: Any, req_id: str, req_idx: int, sampling_params: Any) -> None:
        original(self, req_id, req_idx, sampling_params)
        try:
            request = DrawRequest.from_extra_args(sampling_params.extra_args)
        except InvalidArgumentError as error:
            _requests(self)[req_id] = f"request {req_id}: {error}"
        else:
            if request is None:
                return
            _requests(self)[req_id] = PromptDraws(req_id, request)
        # Our requests come as fixed-id scoring, so that vLLM's own guards for it hold; the scores
        # themselves are not wanted.
        self.token_id_scores.pop(req_id, None)

    return add_request


def _removing(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def remove_request(self: Any, req_id: str) -> None:
        original(self, req_id)
        _requests(self).pop(req_id, None)

    return remove_request


def _drawing(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def compute_prompt_token_id_logprobs(
        self: Any,
        logits_fn: LogitsFunction,
        hidden_states: torch.Tensor,
        input_batch: Any,
        prompt_lens: npt.NDArray[np.int32],
    ) -> dict[str, torch.Tensor]:
        results = dict(original(self, logits_fn, hidden_states, input_batch, prompt_lens))
        results.update(
            draw_step(_requests(self), logits_fn, hidden_states, input_batch, prompt_lens)
        )
        return results

    return compute_prompt_token_id_logprobs


def draw_step(
    requests: dict[str, PromptDraws | str],
    logits_fn: LogitsFunction,
    hidden_states: torch.Tensor,
    input_batch: Any,
    prompt_lens: npt.NDArray[np.int32],
) -> dict[str, torch.Tensor]:
    """One step of the engine: draws at the prompt rows of our requests, in batch order.

    Args:
        requests: Ours that are under way, or why they cannot be; those that end here are removed.
        logits_fn: The model's head.
        hidden_states: (T, H): rows of all requests of the step, one after the other.
        input_batch: vLLM's InputBatch.
        prompt_lens: Prompt lengths by the index of a request's state.

    Returns:
        What travels, for each request whose last prompt row was in this step.
    """
    import torch

    results: dict[str, torch.Tensor] = {}
    for index, req_id in enumerate(input_batch.req_ids):
        request = requests.get(req_id)
        if request is None:
            continue
        prompt_length = int(prompt_lens[input_batch.idx_mapping_np[index]])
        start = int(input_batch.num_computed_prefill_tokens_np[index])
        # As vLLM does: after its prompt, or resumed with tokens of its own, a request has had
        # its answer.
        if start >= prompt_length or prompt_length < input_batch.prefill_len_np[index]:
            del requests[req_id]
            continue
        stop = min(start + int(input_batch.num_scheduled_tokens[index]), prompt_length)
        if isinstance(request, PromptDraws):
            row = int(input_batch.query_start_loc_np[index])
            request.add(start, hidden_states[row : row + stop - start], logits_fn)
        if stop == prompt_length:
            del requests[req_id]
            packed = (
                torch.from_numpy(pack_failure(request))
                if isinstance(request, str)
                else request.packed(prompt_length)
            )
            if packed is not None:
                results[req_id] = packed
    return results


def _requests(worker: Any) -> dict[str, PromptDraws | str]:
    found: dict[str, PromptDraws | str] = worker.__dict__.setdefault(_REQUESTS, {})
    return found
