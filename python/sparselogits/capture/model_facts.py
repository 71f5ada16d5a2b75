"""What a Hugging Face model says about itself: vocabulary, context, identity."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sparselogits.errors import InvalidArgumentError, VocabularyMismatchError

if TYPE_CHECKING:
    import torch
    from torch import nn

# Names that families use for the longest window; the first one that is set counts.
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def output_head(model: nn.Module) -> nn.Module:
    """The module that turns hidden states into logits.

    Raises:
        InvalidArgumentError: The model does not follow the Hugging Face conventions.
    """
    getter = getattr(model, "get_output_embeddings", None)
    head = getter() if callable(getter) else None
    if head is None or getattr(head, "weight", None) is None:
        raise InvalidArgumentError(
            f"{type(model).__name__} has no output head: capture needs a causal language model "
            "whose get_output_embeddings() returns a module with a weight"
        )
    return head  # type: ignore[no-any-return]


def text_config(model: nn.Module) -> Any:
    """The configuration of the language model, also inside a multimodal one; None without one."""
    config = getattr(model, "config", None)
    getter = getattr(config, "get_text_config", None)
    return getter() if callable(getter) else config


def context_length(model: nn.Module) -> int | None:
    """The longest window that the model's positions allow, or None where it names no limit."""
    config = text_config(model)
    for field in _CONTEXT_FIELDS:
        value = getattr(config, field, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def sliding_window(model: nn.Module) -> int | None:
    """How many tokens back the layers see that do not see all, or None where every layer does."""
    config = text_config(model)
    kinds = getattr(config, "layer_types", None)
    if kinds and all(kind == "full_attention" for kind in kinds):
        return None
    window = getattr(config, "sliding_window", None)
    return window if isinstance(window, int) else None


def attention_implementation(model: nn.Module) -> str:
    """transformers' name of it: "sdpa", "eager", "flash_attention_2" …; "" where there is none."""
    return getattr(text_config(model), "_attn_implementation", None) or ""


def resolve_vocab_size(model: nn.Module, tokenizer: Any, vocab_size: int | None) -> int:
    """The number of tokens that are real; head rows beyond it are padding.

    Uses `vocab_size`, else `len(tokenizer)`, else `model.config.vocab_size`, else the head.

    Raises:
        VocabularyMismatchError: The head has fewer rows than the vocabulary has tokens.
        InvalidArgumentError: `vocab_size` is not a positive integer.
    """
    weight: Any = output_head(model).weight
    rows = int(weight.shape[0])
    if vocab_size is not None:
        if isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or vocab_size < 1:
            raise InvalidArgumentError(f"vocab_size must be a positive integer, got {vocab_size!r}")
        wanted, origin = vocab_size, "vocab_size"
    elif tokenizer is not None:
        wanted, origin = len(tokenizer), "the tokenizer"
    else:
        named = getattr(text_config(model), "vocab_size", None)
        wanted, origin = (named, "model.config") if isinstance(named, int) else (rows, "the head")
    if rows < wanted:
        raise VocabularyMismatchError(
            f"{origin} has {wanted} tokens, but the teacher's head has only {rows} rows"
        )
    return wanted


def teacher_name(model: nn.Module) -> str:
    """The name or path that the model was loaded from, else the name of its class."""
    name = getattr(getattr(model, "config", None), "_name_or_path", "")
    return str(name) if name else type(model).__name__


def teacher_dtype(model: nn.Module) -> str:
    """The dtype of the model's first floating-point parameter, e.g. "bfloat16"."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return str(parameter.dtype).removeprefix("torch.")
    return "unknown"


def weights_fingerprint(model: nn.Module) -> str:
    """16 hex digits that change when the weights do; reads 64 values a tensor, so it is cheap.

    It tells an interrupted capture that the teacher is still the same one. It is no proof of
    equality: values between the sampled ones are not read.
    """
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_some_values(tensor).numpy().tobytes())
    return digest.hexdigest()


def _some_values(tensor: torch.Tensor) -> torch.Tensor:
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // 64)
    return flat[::step][:64].cpu().double()  # not the other way round: Metal has no float64
