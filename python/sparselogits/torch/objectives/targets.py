"""Sparse targets of labels and of a live teacher: for `sparse_kd_loss` and the fused loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselogits import checks
from sparselogits.errors import InvalidArgumentError
from sparselogits.sampling import sample
from sparselogits.torch.arguments import flatten_rows
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.row_blocks import row_blocks, scaled, softmax
from sparselogits.torch.rows import compute_dtype
from sparselogits.torch.targets import SparseTargets


def label_targets(labels: Tensor, *, vocab_size: int | None = None) -> SparseTargets:
    """Certainty of the next token: the sparse loss of these rows is cross-entropy.

    On a device it waits for the number of labels, which `CrossEntropy` does not.

    Args:
        labels: (B, S) or (R,) integers; -100 makes an empty row, which the losses ignore.
        vocab_size: Of the labels, where known.

    Returns:
        R rows of one entry or none.
    """
    flat = labels.reshape(-1)
    known = flat != IGNORED_LABEL
    ids = flat[known]
    return SparseTargets(
        _offsets(known), ids, torch.ones_like(ids, dtype=torch.float32), vocab_size
    )


def top_k_targets(
    teacher_logits: Tensor, k: int, *, temperature: float = 1.0, renormalise: bool = False
) -> SparseTargets:
    """The k most likely tokens of each row. Biased: the tail of the teacher is lost.

    A student that fits these weights scales up what was kept (Anshumann et al. 2025, section 3);
    renormalised weights ask for that outright.

    Args:
        teacher_logits: (B, S, V) or (R, V).
        k: Entries of each row, from 1 to V.
        temperature: Divides the teacher's logits.
        renormalise: Divide by the sum of the k probabilities.
    """
    flat, _ = flatten_rows(teacher_logits, "teacher_logits")
    num_rows, width = flat.shape
    k = checks.integer("k", k, 1, width)
    temperature = checks.positive_float("temperature", temperature)
    dtype = compute_dtype(flat.dtype)
    ids = torch.empty((num_rows, k), dtype=torch.int64, device=flat.device)
    weights = torch.empty((num_rows, k), dtype=torch.float32, device=flat.device)
    for part in row_blocks(flat, dtype):
        z = scaled(flat[part].detach(), temperature, dtype)
        p, _ = softmax(z, out=z)
        ids[part] = p.topk(k, dim=-1, sorted=False).indices.sort(-1).values
        kept = p.gather(-1, ids[part])
        weights[part] = kept / kept.sum(-1, keepdim=True) if renormalise else kept
    offsets = torch.arange(num_rows + 1) * k
    return SparseTargets.with_host_offsets(
        offsets.to(flat.device), ids.reshape(-1), weights.reshape(-1), width, offsets
    )


def top_p_targets(
    teacher_logits: Tensor, p: float, *, temperature: float = 1.0, renormalise: bool = False
) -> SparseTargets:
    """The fewest tokens that hold at least the mass p of each row. Biased as `top_k_targets` is.

    On a device it waits for the number of entries.

    Args:
        teacher_logits: (B, S, V) or (R, V).
        p: Above 0 and at most 1.
        temperature: Divides the teacher's logits.
        renormalise: Divide by the mass that was kept.
    """
    flat, _ = flatten_rows(teacher_logits, "teacher_logits")
    if not 0 < p <= 1:
        raise InvalidArgumentError(f"p is {p!r}; it must be above 0 and at most 1")
    temperature = checks.positive_float("temperature", temperature)
    dtype = compute_dtype(flat.dtype)
    lengths, ids, weights = [], [], []
    for part in row_blocks(flat, dtype):
        z = scaled(flat[part].detach(), temperature, dtype)
        probabilities, _ = softmax(z, out=z)
        sorted_p, order = probabilities.sort(-1, descending=True)
        # A token is kept while those before it fall short of p: at least one always is.
        kept_sorted = (sorted_p.cumsum(-1) - sorted_p < p) & (sorted_p > 0)
        kept = torch.zeros_like(kept_sorted).scatter_(-1, order, kept_sorted)
        if renormalise:
            probabilities /= (probabilities * kept).sum(-1, keepdim=True)
        lengths.append(kept.sum(-1))
        ids.append(kept.nonzero()[:, 1])
        weights.append(probabilities[kept].float())
    none = torch.empty(0, dtype=torch.int64, device=flat.device)
    lengths_of_all = torch.cat([none, *lengths])
    return SparseTargets(
        _offsets(lengths_of_all),
        torch.cat([none, *ids]),
        torch.cat([none.float(), *weights]),
        flat.shape[1],
    )


def sampled_targets(teacher_logits: Tensor, position_keys: Any, **options: Any) -> SparseTargets:
    """Draws from a live teacher, as a cache would hold them: unbiased (RS-KD).

    Args:
        teacher_logits: (B, S, V) or (R, V).
        position_keys: What `sparselogits.sample` takes: new ones for every position and step, or
            the errors of the draws never average out.
        options: rounds, sampler, temperature, proposal_temperature, seed: as `sparselogits.sample`.
    """
    flat, _ = flatten_rows(teacher_logits, "teacher_logits")
    draws = sample(flat.detach(), position_keys=position_keys, **options)
    return SparseTargets(draws.offsets, draws.token_ids, draws.weights, flat.shape[1])


def _offsets(lengths: Tensor) -> Tensor:
    offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
    torch.cumsum(lengths, 0, out=offsets[1:])
    return offsets
