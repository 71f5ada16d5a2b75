"""`sample` for torch tensors: C++ for CPU memory, and the same draws in torch elsewhere.

Rows go through in chunks that bound temporary memory. Nothing waits for the device before
`compact` asks how many tokens were drawn.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch

from sparselogits import triton_support
from sparselogits.sampling import Draws, Keys, SampleOptions, sample_array
from sparselogits.sampling_torch import proposal, tiles
from sparselogits.sampling_torch.compaction import DrawnRows, compact
from sparselogits.sampling_torch.points import counter_words
from sparselogits.sampling_torch.refusal import extreme_of, refuse

_LOGITS_PER_CHUNK = 1 << 22  # or other values a row takes: bounds temporaries to about 200 MB


class TileBackend(Protocol):
    """What plain draws need of an implementation: tiles.py says what each does."""

    def row_cost(self, vocab_size: int, rounds: int) -> int: ...

    def statistics(
        self, logits: torch.Tensor, grid: tiles.TileGrid, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def points(
        self, words: torch.Tensor, totals: torch.Tensor, options: SampleOptions
    ) -> torch.Tensor: ...

    def tokens(
        self,
        logits: torch.Tensor,
        grid: tiles.TileGrid,
        temperature: float,
        tile_max: torch.Tensor,
        tile: torch.Tensor,
        offset: torch.Tensor,
    ) -> torch.Tensor: ...


def sample_tensor(logits: torch.Tensor, keys: Keys, options: SampleOptions) -> Draws[torch.Tensor]:
    """Draws on the device of the logits; no gradient flows through them."""
    device = logits.device
    if device.type not in ("cpu", "mps"):
        return sample_with_torch(logits, keys, options)
    # Metal promises no IEEE arithmetic and has no float64; its memory is the CPU's.
    draws = sample_array(_as_array(logits.detach().cpu()), keys, options)
    counts = None if draws.counts is None else draws.counts.astype(np.int32)
    return Draws(
        offsets=torch.from_numpy(draws.offsets).to(device),
        token_ids=torch.from_numpy(draws.token_ids).to(device),
        counts=None if counts is None else torch.from_numpy(counts).to(device),
        weights=torch.from_numpy(draws.weights).to(device),
        rounds=draws.rounds,
    )


def _as_array(logits: torch.Tensor) -> np.ndarray[Any, Any]:
    if logits.dtype == torch.bfloat16:  # NumPy has no such type: the core takes its bits
        return logits.view(torch.uint16).numpy()
    return logits.numpy()


@torch.no_grad()
def sample_with_torch(
    logits: torch.Tensor,
    keys: Keys,
    options: SampleOptions,
    backend: TileBackend | None = None,
) -> Draws[torch.Tensor]:
    """The torch path, for any device that has int64 (and float64, for proposals)."""
    logits = logits.detach()
    backend = backend or best_backend(logits.device)
    num_rows, vocab_size = logits.shape
    words = counter_words(keys, logits.device)
    if options.weighted:
        row_cost = max(vocab_size, options.rounds)
    else:
        row_cost = backend.row_cost(vocab_size, options.rounds)
    chunks = []
    for rows in row_chunks(num_rows, row_cost):
        if options.weighted:
            chunks.append(_draw_with_proposal(logits[rows], words[rows], options))
        else:
            chunks.append(_draw_plain(logits[rows], words[rows], options, backend))
    draws = compact(chunks, options, logits.device)
    if isinstance(draws, int):
        refuse(draws, extreme_of(logits[draws]), options)
    return draws


def best_backend(device: torch.device) -> TileBackend:
    """Triton where it is installed and made for the device, or pure torch: equal draws."""
    if not triton_support.supports(device):
        return tiles
    from sparselogits.sampling_torch import triton_tiles

    return triton_tiles


def row_chunks(num_rows: int, row_cost: int) -> list[slice]:
    """Rows that may be worked on at once; `row_cost` is the number of values a row takes."""
    step = max(1, _LOGITS_PER_CHUNK // row_cost)
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _draw_plain(
    logits: torch.Tensor, words: torch.Tensor, options: SampleOptions, backend: TileBackend
) -> DrawnRows:
    vocab_size = logits.shape[1]
    grid = tiles.TileGrid(vocab_size, 0, vocab_size)
    tile_max, tile_sum = backend.statistics(logits, grid, options.temperature)
    row_max = tile_max.amax(1, keepdim=True)
    masses = tiles.weigh(tile_max, tile_sum, row_max, grid.base_shift)
    points = backend.points(words, masses.mass.sum(1, keepdim=True), options)
    tile, offset = tiles.locate(points, masses)
    tokens = backend.tokens(logits, grid, options.temperature, tile_max, tile, offset)
    return DrawnRows(tokens.to(torch.int32), torch.isfinite(row_max[:, 0]))


def _draw_with_proposal(
    logits: torch.Tensor, words: torch.Tensor, options: SampleOptions
) -> DrawnRows:
    target, scaled = proposal.scaled_logits(logits, options)
    target_max, proposal_max = target.amax(1, keepdim=True), scaled.amax(1, keepdim=True)
    bits = proposal.mass_bits(logits.shape[1])
    masses = proposal.masses(target, scaled, target_max, proposal_max, bits)
    ends = masses.proposal.cumsum(1)
    total = ends[:, -1:]
    tokens = torch.searchsorted(ends, tiles.points(words, total, options), right=True)
    tokens.clamp_(max=logits.shape[1] - 1)  # rows at fault have no masses
    ratios = proposal.ratios(masses, tokens, masses.target_sum, total, bits, options)
    fine = torch.isfinite(target_max[:, 0]) & torch.isfinite(proposal_max[:, 0])
    return DrawnRows(tokens.to(torch.int32), fine, ratios)
