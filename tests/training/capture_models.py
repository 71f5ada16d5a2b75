"""Tiny random teachers of real families, and broken ones, for the tests of capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 97
CONTEXT = 32

_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.3,  # logits that differ enough to be worth sampling
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def llama(**changes: Any) -> nn.Module:
    return _family("Llama", changes)


def gpt2(**changes: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    fields = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2}
    fields |= {"n_positions": CONTEXT, "initializer_range": 0.3, "bos_token_id": 1}
    fields |= {"eos_token_id": 2, **changes}
    return _seeded(lambda: GPT2LMHeadModel(GPT2Config(**fields)))


def gemma2(**changes: Any) -> nn.Module:
    return _family("Gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, **changes})


def gemma3(**changes: Any) -> nn.Module:
    fields = {"head_dim": 8, "final_logit_softcapping": 2.0, **changes}
    return _family("Gemma3", fields, "Gemma3TextConfig")


def cohere(**changes: Any) -> nn.Module:
    return _family("Cohere", {"logit_scale": 0.25, **changes})


def granite(**changes: Any) -> nn.Module:
    return _family("Granite", {"logits_scaling": 4.0, **changes})


def qwen3(**changes: Any) -> nn.Module:
    return _family("Qwen3", {"head_dim": 8, **changes})


def gpt_neox(**changes: Any) -> nn.Module:
    return _family("GPTNeoX", changes)


def opt(**changes: Any) -> nn.Module:
    return _family("OPT", {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.3, **changes})


def mixtral(**changes: Any) -> nn.Module:
    return _family("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, **changes})


def mistral(**changes: Any) -> nn.Module:
    return _family("Mistral", changes)


def qwen2(**changes: Any) -> nn.Module:
    return _family("Qwen2", changes)


def phi3(**changes: Any) -> nn.Module:
    return _family("Phi3", changes)


def olmo2(**changes: Any) -> nn.Module:
    return _family("Olmo2", changes)


def bloom(**changes: Any) -> nn.Module:
    """Takes no position ids: windows of several documents cannot be run with it."""
    return _family("Bloom", {"n_head": 2, "n_layer": 2, **changes})


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    build.__name__: build
    for build in (
        llama,
        gpt2,
        gemma2,
        gemma3,
        cohere,
        granite,
        qwen3,
        gpt_neox,
        opt,
        mixtral,
        mistral,
        qwen2,
        phi3,
        olmo2,
    )
}
#: Those whose forward changes what the head gives.
POST_PROCESSING = ("gemma2", "gemma3", "cohere", "granite")


class PlainModel(nn.Module):
    """The least that capture asks of a teacher: `forward(input_ids)` and a named output head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.body = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden, _ = self.body(self.embedding(input_ids))
        return self.finish(self.head(hidden))

    def finish(self, logits: Tensor) -> Tensor:
        return logits


class CentredOverWindow(PlainModel):
    """Subtracts the mean over all positions: no chunk can know it."""

    def finish(self, logits: Tensor) -> Tensor:
        return logits - logits.mean(dim=1, keepdim=True)


class RoundingModel(PlainModel):
    """Casts what the float32 head gives back to bfloat16, and hides it."""

    def finish(self, logits: Tensor) -> Tensor:
        return logits.bfloat16().float()


class HeadlessModel(nn.Module):
    def forward(self, input_ids: Tensor) -> Tensor:
        return input_ids


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def _family(name: str, changes: dict[str, Any], config: str | None = None) -> nn.Module:
    import transformers

    fields = {**_SHARED, **changes}
    configured = getattr(transformers, config or f"{name}Config")(**fields)
    return _seeded(lambda: getattr(transformers, f"{name}ForCausalLM")(configured))
