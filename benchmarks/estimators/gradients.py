"""Where a target sends the backbone of a student, against full distillation.

The student is the teacher with Gaussian noise on every matrix of its backbone: close to its
teacher, as one is after long training, where the full gradient is small and a bias shows. All
targets share a forward pass: the gradient of the hidden states is (W q - w) C, and only that goes
back through the backbone, once a target.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from estimators.blocks import Target

NOISE = 0.05  # of the standard deviation of each matrix


def perturbed(teacher: Any, noise: float = NOISE, seed: int = 0) -> Any:
    """A copy of the teacher whose backbone is noisy; the embedding and the head are the same."""
    student = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone(student):
            if parameter.dim() == 2:
                noisy = torch.randn(parameter.shape, generator=generator)
                parameter += noise * parameter.std() * noisy
    return student


def backbone(model: Any) -> list[torch.nn.Parameter]:
    """All parameters but the embedding, to which the head is tied."""
    return [p for name, p in model.named_parameters() if "embed" not in name]


class Batch:
    """One batch of a student, forward pass done.

    Args:
        student: A causal language model.
        input_ids: (B, S).
        probabilities: (B·S, V) float32, the teacher's rows, dense.
        temperature: Divides the student's logits, as it did the teacher's.
    """

    def __init__(
        self, student: Any, input_ids: Tensor, probabilities: Tensor, temperature: float
    ) -> None:
        self._parameters = backbone(student)
        for parameter in student.parameters():
            parameter.requires_grad_(False)
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._hidden = student.model(input_ids).last_hidden_state.flatten(0, 1)
        self._head = student.get_output_embeddings().weight.detach() / temperature
        self._q = torch.empty_like(probabilities)
        self._of_q = torch.empty_like(self._hidden)
        of_p = torch.empty_like(self._hidden)
        divergence = 0.0
        with torch.no_grad():
            for start in range(0, len(probabilities), 128):
                rows = slice(start, start + 128)
                log_q = functional.log_softmax(self._hidden[rows] @ self._head.T, dim=-1)
                p = probabilities[rows]
                divergence += float((torch.xlogy(p, p) - p * log_q).sum())
                self._q[rows] = log_q.exp()
                self._of_q[rows] = self._q[rows] @ self._head
                of_p[rows] = p @ self._head
        self.divergence = divergence / len(probabilities)  # KL(teacher ‖ student), nats
        self.full = self._backward(self._of_q - of_p)  # the gradient of full distillation

    def gradient(self, target: Target) -> tuple[Tensor, ...]:
        """Of Σ w (lse - z), for weights that sum to W in a row."""
        weights = torch.from_numpy(target.weights).float()
        sums = torch.zeros(target.num_rows).index_add_(0, torch.from_numpy(target.rows), weights)
        return self._backward(sums[:, None] * self._of_q - self._gathered(target, weights))

    def ghost_gradient(self, target: Target) -> tuple[Tensor, ...]:
        """The same for K tokens and a class "none of them" that both models have.

        Its logit gradient is q - p on the K tokens and q (1 - p_rest / q_rest) elsewhere.
        """
        rows, ids = torch.from_numpy(target.rows), torch.from_numpy(target.token_ids)
        p = torch.from_numpy(target.weights).float()
        q = self._q[rows, ids]
        p_rest = 1 - torch.zeros(target.num_rows).index_add_(0, rows, p)
        q_rest = 1 - torch.zeros(target.num_rows).index_add_(0, rows, q)
        elsewhere = 1 - p_rest / q_rest
        return self._backward(
            elsewhere[:, None] * self._of_q - self._gathered(target, p - q + elsewhere[rows] * q)
        )

    def _gathered(self, target: Target, weights: Tensor) -> Tensor:
        """(B·S, H) Σ w C[id] of each row."""
        starts = torch.from_numpy(np.searchsorted(target.rows, np.arange(target.num_rows)))
        return functional.embedding_bag(
            torch.from_numpy(target.token_ids),
            self._head,
            starts,
            mode="sum",
            per_sample_weights=weights,
        )

    def _backward(self, of_hidden: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            self._hidden, self._parameters, of_hidden / len(of_hidden), retain_graph=True
        )
