"""From drawn tokens, one for every round, to sparse rows: the only place that waits for a device.

Until here all shapes follow from the arguments. How many different tokens were drawn decides the
shape of the result; it is read together with whether any row was at fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch

from sparselogits.sampling import Draws, SampleOptions


@dataclass(frozen=True)
class DrawnRows:
    """What a chunk of rows drew."""

    tokens: torch.Tensor  # (rows, rounds) int32, ascending in each row
    fine: torch.Tensor  # (rows,) bool: False for a row that cannot be sampled
    ratios: torch.Tensor | None = None  # (rows, rounds) float64, of the tokens: see `ratios`


def compact(
    chunks: list[DrawnRows], options: SampleOptions, device: torch.device
) -> Draws[torch.Tensor] | int:
    """Joins chunks of rows; the number of the first row at fault if there is one."""
    firsts = [_firsts(chunk.tokens) for chunk in chunks]
    offsets = torch.zeros(sum(map(len, firsts)) + 1, dtype=torch.int64, device=device)
    ends, num_entries, fault = [], 0, -1
    if chunks:
        torch.cumsum(torch.cat([first.sum(1) for first in firsts]), 0, out=offsets[1:])
        fine = torch.cat([chunk.fine for chunk in chunks]).to(torch.int32)
        last_rows = accumulate(len(first) for first in firsts)
        facts = [offsets[row] for row in last_rows] + [fine.amin(), fine.argmin()]
        *ends, all_fine, fault = torch.stack([fact.to(torch.int64) for fact in facts]).tolist()
        if not all_fine:
            return int(fault)
        num_entries = ends[-1]
    token_ids = torch.empty(num_entries, dtype=torch.int32, device=device)
    counts = torch.zeros(num_entries, dtype=torch.int32, device=device)
    weights = torch.empty(num_entries, dtype=torch.float32, device=device)
    start = 0
    for chunk, first, end in zip(chunks, firsts, ends, strict=True):
        part = slice(start, end)
        start = end
        entry = first.view(-1).cumsum(0).sub_(1)  # of every round: equal tokens share one
        token_ids[part].scatter_(0, entry, chunk.tokens.view(-1))
        counts[part].scatter_add_(0, entry, torch.ones_like(entry, dtype=torch.int32))
        if chunk.ratios is not None:
            weights[part] = _importance_weights(chunk, entry, counts[part], options)
    if options.weighted:
        return Draws(offsets, token_ids, None, weights, options.rounds)
    # A divisor in a tensor: by a Python scalar, CUDA would multiply with the rounded reciprocal.
    torch.div(counts, torch.full((1,), float(options.rounds), device=device), out=weights)
    return Draws(offsets, token_ids, counts, weights, options.rounds)


def _firsts(tokens: torch.Tensor) -> torch.Tensor:
    """Where a token is drawn that the round before did not draw."""
    first = torch.ones_like(tokens, dtype=torch.bool)
    torch.ne(tokens[:, 1:], tokens[:, :-1], out=first[:, 1:])
    return first


def _importance_weights(
    chunk: DrawnRows, entry: torch.Tensor, counts: torch.Tensor, options: SampleOptions
) -> torch.Tensor:
    assert chunk.ratios is not None
    ratios = torch.empty(len(counts), dtype=torch.float64, device=counts.device)
    ratios.scatter_(0, entry, chunk.ratios.view(-1))
    if not options.self_normalize:
        return (counts * ratios / options.rounds).float()
    rows, rounds = chunk.tokens.shape
    row = torch.empty_like(counts, dtype=torch.int64)
    every_row = torch.arange(rows, device=row.device).repeat_interleave(
        rounds, output_size=rows * rounds
    )
    row.scatter_(0, entry, every_row)
    largest = ratios.new_full((rows,), -math.inf).scatter_reduce_(0, row, ratios, "amax")
    weights = counts * (ratios - largest[row]).exp()
    sums = torch.zeros_like(largest).scatter_add_(0, row, weights)
    return (weights / sums[row]).float()
