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
    from transformers import LlamaConfig, LlamaForCausalLM

    return _seeded(lambda: LlamaForCausalLM(LlamaConfig(**{**_SHARED, **changes})))


def gpt2(**changes: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    fields = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2}
    fields |= {"n_positions": CONTEXT, "initializer_range": 0.3, "bos_token_id": 1}
    fields |= {"eos_token_id": 2, **changes}
    return _seeded(lambda: GPT2LMHeadModel(GPT2Config(**fields)))


def gemma2(**changes: Any) -> nn.Module:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    fields = {**_SHARED, "head_dim": 8, "final_logit_softcapping": 2.0, **changes}
    return _seeded(lambda: Gemma2ForCausalLM(Gemma2Config(**fields)))


def cohere(**changes: Any) -> nn.Module:
    from transformers import CohereConfig, CohereForCausalLM

    fields = {**_SHARED, "logit_scale": 0.25, **changes}
    return _seeded(lambda: CohereForCausalLM(CohereConfig(**fields)))


def granite(**changes: Any) -> nn.Module:
    from transformers import GraniteConfig, GraniteForCausalLM

    fields = {**_SHARED, "logits_scaling": 4.0, **changes}
    return _seeded(lambda: GraniteForCausalLM(GraniteConfig(**fields)))


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "llama": llama,
    "gpt2": gpt2,
    "gemma2": gemma2,
    "cohere": cohere,
    "granite": granite,
}
#: Those whose forward changes what the head gives.
POST_PROCESSING = ("gemma2", "cohere", "granite")


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
