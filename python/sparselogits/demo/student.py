"""The demo's student: a small decoder-only transformer in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Student(nn.Module):
    """Pre-norm transformer with learned positions and a head tied to the embedding.

    Args:
        vocab_size: V, the teacher's vocabulary.
        width: H, features per token. Small: V·H dominates both the size and the work.
        layers: Number of blocks.
        heads: Attention heads; must divide `width`.
        context: Longest window.
    """

    def __init__(
        self, vocab_size: int, width: int = 64, layers: int = 2, heads: int = 4, context: int = 128
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.05)
        nn.init.normal_(self.positions.weight, std=0.01)

    def hidden(self, input_ids: Tensor) -> Tensor:
        """(B, S) ids to the (B, S, H) states that the head multiplies."""
        x = self.embedding(input_ids)
        x = x + self.positions.weight[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        normed: Tensor = self.norm(x)
        return normed

    @property
    def head_weight(self) -> Tensor:
        """(V, H), the embedding itself."""
        return self.embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, S) ids to (B, S, V) logits."""
        return functional.linear(self.hidden(input_ids), self.head_weight)

    def backbone(self) -> list[nn.Parameter]:
        """Every parameter except the tied embedding: what the gradient angle is measured on."""
        return [p for name, p in self.named_parameters() if name != "embedding.weight"]


class Block(nn.Module):
    """Causal self-attention and a gelu MLP, each behind a norm and beside a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.queries_keys_values(self.attention_norm(x))
        split = qkv.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(
            split[0], split[1], split[2], is_causal=True
        )
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(x.shape))
        result: Tensor = x + self.mlp(self.mlp_norm(x))
        return result


def new_student(vocab_size: int, context: int, seed: int) -> Student:
    """A student whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(vocab_size, context=context)
