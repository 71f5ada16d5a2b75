"""Which private parts of vLLM the plugin relies on: data for `assumptions`, one release only.

The fingerprints are those of the release's wheel. When the pin moves, read each of these functions
again, say below what is still true of it, and only then write down its new fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass

VLLM_VERSION = "0.33.0"


@dataclass(frozen=True)
class ReliedFunction:
    """A function whose text was read.

    Attributes:
        module: Dotted name of the module.
        name: Name inside the module, such as "Class.method".
        parameters: All of its parameters, separated by spaces.
        fingerprint: Of its text, as `source.FunctionFacts` has it.
        reason: What the plugin takes from it.
    """

    module: str
    name: str
    parameters: str
    fingerprint: str
    reason: str


@dataclass(frozen=True)
class ReliedFields:
    """Names that a class must define."""

    module: str
    name: str
    fields: tuple[str, ...]


_WORKER = "vllm.v1.worker.gpu.sample.prompt_logprob"
_RUNNER = "vllm.v1.worker.gpu.model_runner"
_LOGITS = "vllm.model_executor.layers.logits_processor"

#: Methods of `PromptLogprobsWorker` that the plugin wraps.
PATCHED = (
    ReliedFunction(
        _WORKER,
        "PromptLogprobsWorker.add_request",
        "self req_id req_idx sampling_params",
        "3c8c720a0c52cfeb",
        "is called once a request with its SamplingParams; fixed-id scoring is one token_id_scores",
    ),
    ReliedFunction(
        _WORKER,
        "PromptLogprobsWorker.remove_request",
        "self req_id",
        "c4e709f12ab41888",
        "is called when a request ends or is preempted",
    ),
    ReliedFunction(
        _WORKER,
        "PromptLogprobsWorker.compute_prompt_token_id_logprobs",
        "self logits_fn hidden_states input_batch prompt_lens",
        "67856d874514aabd",
        "is called each step; row r of a request's slice of hidden_states is its position "
        "num_computed_prefill_tokens + r; returns one tensor a request after its last prompt row",
    ),
)

#: Functions that the plugin leaves alone and whose behaviour it needs.
NEEDED = (
    ReliedFunction(
        _WORKER,
        "PromptLogprobsWorker.__init__",
        "self max_num_reqs device logprobs_mode",
        "280abb6bc04f3842",
        "has the dict token_id_scores",
    ),
    ReliedFunction(
        _RUNNER,
        "GPUModelRunner.add_requests",
        "self scheduler_output",
        "5a73e8836fef0ed8",
        "hands each new request of the last pipeline stage to the worker",
    ),
    ReliedFunction(
        _RUNNER,
        "GPUModelRunner.finish_requests",
        "self scheduler_output",
        "10a9e16dd5e03ff3",
        "removes preempted requests, which later come back as new ones",
    ),
    ReliedFunction(
        _RUNNER,
        "GPUModelRunner._remove_request",
        "self req_id",
        "6234dfc3fcdb245e",
        "tells the worker of each request that ends or is preempted",
    ),
    ReliedFunction(
        _RUNNER,
        "GPUModelRunner.sample_tokens",
        "self grammar_output",
        "3510e0d8170364ee",
        "gives the worker the hidden states of all scheduled rows, the last prompt row included, "
        "and compute_logits, on every tensor-parallel rank",
    ),
    ReliedFunction(
        _LOGITS,
        "LogitsProcessor.forward",
        "self lm_head hidden_states embedding_bias skip_gather",
        "69f7caae58a8b6bc",
        "applies soft cap and scale in the dtype of the head",
    ),
    ReliedFunction(
        _LOGITS,
        "LogitsProcessor._apply_head",
        "self lm_head hidden_states embedding_bias",
        "4213b94abbc0e9ed",
        "accumulates and returns float32 where head_dtype is float32",
    ),
    ReliedFunction(
        _LOGITS,
        "LogitsProcessor._get_logits",
        "self hidden_states lm_head embedding_bias skip_gather",
        "90a4c7fb5894b964",
        "gathers the vocabulary over tensor-parallel ranks and cuts its padding",
    ),
    ReliedFunction(
        _LOGITS,
        "LogitsProcessor._gather_logits",
        "self logits",
        "c68f5ae93da230ed",
        "is a collective call; may give None on ranks other than the first",
    ),
    ReliedFunction(
        "vllm.config.model",
        "ModelConfig.head_dtype",
        "self",
        "74c8f3cc252533f5",
        "is set by hf_overrides",
    ),
    ReliedFunction(
        "vllm.v1.core.kv_cache_manager",
        "KVCacheManager.prefix_cache_lookup_enabled",
        "self request",
        "fead4bc187ba5ac3",
        "a request with skip_reading_prefix_cache computes all of its rows",
    ),
    ReliedFunction(
        "vllm.v1.worker.gpu.async_utils",
        "AsyncOutput.__init__",
        "self model_runner_output sampler_output num_sampled_tokens main_stream "
        "copy_stream check_ep_fault pending_aux_output",
        "d03e8f8580173c90",
        "copies the tensors of prompt_token_id_logprobs_dict to the CPU, whatever their dtype",
    ),
    ReliedFunction(
        "vllm.v1.worker.gpu.async_utils",
        "AsyncOutput.get_output",
        "self",
        "4b97c4a512ff0e50",
        "hands them on",
    ),
    ReliedFunction(
        "vllm.v1.core.sched.scheduler",
        "Scheduler.update_from_output",
        "self scheduler_output model_runner_output",
        "db85c2ebefbc6a6c",
        "puts a request's tensor into its EngineCoreOutput, unread",
    ),
    ReliedFunction(
        "vllm.v1.serial_utils",
        "MsgpackEncoder._encode_tensor",
        "self obj",
        "6a5f3e549042d935",
        "carries any dtype and shape",
    ),
    ReliedFunction(
        "vllm.v1.serial_utils",
        "MsgpackDecoder._decode_tensor",
        "self arr",
        "94e098ff981988ae",
        "restores dtype and shape",
    ),
    ReliedFunction(
        "vllm.v1.engine.logprobs",
        "LogprobsProcessor.update_from_output",
        "self output",
        "5e60561fe1131788",
        "turns the tensor into a NumPy array and nothing else",
    ),
    ReliedFunction(
        "vllm.v1.engine.output_processor",
        "RequestState._new_request_output",
        "self external_req_id outputs finished kv_transfer_params ec_transfer_params error",
        "d2674943ba8d4930",
        "puts the array into the RequestOutput",
    ),
    ReliedFunction(
        "vllm.outputs",
        "RequestOutput.__init__",
        "self request_id prompt prompt_token_ids prompt_logprobs outputs finished "
        "metrics lora_request encoder_prompt encoder_prompt_token_ids num_cached_tokens "
        "num_cache_creation_tokens prompt_token_id_logprobs kv_transfer_params "
        "ec_transfer_params kwargs",
        "e92c7f24c8742317",
        "keeps the array under the same name",
    ),
    ReliedFunction(
        "vllm.v1.engine.input_processor",
        "InputProcessor._validate_params",
        "self params supported_tasks",
        "65729ab7a6f03652",
        "refuses fixed-id scoring where the engine does not run the V2 model runner",
    ),
)

#: Classes whose attributes the plugin or the client uses.
FIELDS = (
    ReliedFields(
        "vllm.v1.worker.gpu.input_batch",
        "InputBatch",
        (
            "req_ids",
            "idx_mapping_np",
            "num_scheduled_tokens",
            "query_start_loc_np",
            "prefill_len_np",
            "num_computed_prefill_tokens_np",
        ),
    ),
    ReliedFields(
        "vllm.sampling_params",
        "SamplingParams",
        (
            "max_tokens",
            "temperature",
            "detokenize",
            "prompt_logprob_token_ids",
            "skip_reading_prefix_cache",
            "extra_args",
        ),
    ),
    ReliedFields("vllm.v1.outputs", "ModelRunnerOutput", ("prompt_token_id_logprobs_dict",)),
    ReliedFields("vllm.v1.engine", "EngineCoreOutput", ("prompt_token_id_logprobs",)),
    ReliedFields(
        "vllm.config.vllm",
        "VllmConfig",
        (
            "model_config",
            "cache_config",
            "lora_config",
            "speculative_config",
            "use_v2_model_runner",
        ),
    ),
    ReliedFields("vllm.config.cache", "CacheConfig", ("kv_sharing_fast_prefill", "cache_dtype")),
    ReliedFields(
        "vllm.config.model",
        "ModelConfig",
        (
            "model",
            "revision",
            "dtype",
            "head_dtype",
            "quantization",
            "architecture",
            "max_model_len",
            "get_vocab_size",
            "is_encoder_decoder",
            "is_diffusion",
        ),
    ),
    ReliedFields("vllm.entrypoints.llm", "LLM", ("generate",)),
)
