"""What the client asks an engine before it captures: is it fit, and which teacher does it run?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparselogits.capture.provenance import run_facts, with_given_facts
from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError
from sparselogits.integrations.vllm.relied_on import VLLM_VERSION


def check_engine(llm: Any) -> None:
    """Refuses an engine whose settings would bias or falsify draws, or were not thought through.

    Raises:
        InvalidArgumentError: Names the setting.
    """
    config = llm.llm_engine.vllm_config
    model = config.model_config
    head_dtype = _name(model.head_dtype)
    if head_dtype != "float32":
        raise InvalidArgumentError(
            f"the engine's head_dtype is {head_dtype}, whose rounding biases the draws: start it "
            "with LLM(..., hf_overrides={'head_dtype': 'float32'})"
        )
    if not config.use_v2_model_runner:
        raise InvalidArgumentError(
            "the engine runs vLLM's V1 model runner, the plugin needs V2: see the engine's log for "
            "the setting that V2 does not support, and leave VLLM_USE_V2_MODEL_RUNNER unset or 1"
        )
    unfit = {
        "kv_sharing_fast_prefill": config.cache_config.kv_sharing_fast_prefill,
        "speculative_config": config.speculative_config is not None,
        "lora_config": config.lora_config is not None,
        "is_encoder_decoder": model.is_encoder_decoder,
        "is_diffusion": model.is_diffusion,
    }
    for name, is_set in unfit.items():
        if is_set:
            raise InvalidArgumentError(f"the engine has {name} set: the plugin does not support it")


def engine_vocab_size(llm: Any, tokenizer: Any, vocab_size: int | None) -> int:
    """`vocab_size`, else `len(tokenizer)`, else the engine's; logits beyond it are cut.

    Raises:
        VocabularyMismatchError: The engine's head has fewer rows.
    """
    rows = int(llm.llm_engine.vllm_config.model_config.get_vocab_size())
    if vocab_size is None:
        vocab_size = rows if tokenizer is None else len(tokenizer)
    if vocab_size > rows:
        raise VocabularyMismatchError(
            f"the vocabulary has {vocab_size} tokens, but the engine's head has only {rows} rows"
        )
    return vocab_size


def longest_window(llm: Any) -> int:
    """Tokens of the longest prompt: vLLM generates one token more, which needs its place."""
    return int(llm.llm_engine.vllm_config.model_config.max_model_len) - 1


def engine_metadata(
    llm: Any,
    seed: int,
    masked: bool,
    user: Mapping[str, str] | None,
    *,
    offset: float = 0.0,
    source: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The metadata of a capture: the keys of `sl.capture`, and those of an engine.

    Arguments and errors are those of `capture.provenance.capture_metadata`.
    """
    config = llm.llm_engine.vllm_config
    model = config.model_config
    facts = {
        "teacher": str(model.model),
        "teacher_class": str(model.architecture),
        "teacher_dtype": _name(model.dtype),
        "teacher_weights_fingerprint": "not taken: the weights are in the engine's processes",
        "teacher_revision": str(model.revision),
        "teacher_quantization": str(model.quantization),
        "kv_cache_dtype": str(config.cache_config.cache_dtype),
        "engine": f"vLLM {VLLM_VERSION}, sparselogits plugin",
        **run_facts(seed, masked, offset),
    }
    return with_given_facts(facts, source, user)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
