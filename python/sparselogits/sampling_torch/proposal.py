"""Draws with a proposal in pure torch: 64-bit masses relative to the row's maximum.

The definition is docs/decisions/0001; see ExpMass of src/sparselogits/exp_mass.h. As in
tiles.py, nothing here may be compiled into fused multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparselogits.sampling import SampleOptions
from sparselogits.sampling_torch.tiles import FLOOR, LN2_HIGH, LN2_LOW, LOG2E, POLYNOMIAL, scale


def scaled_logits(
    logits: torch.Tensor, options: SampleOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """What p and q are the softmax of, in float32."""
    target = scale(logits, options.temperature)
    return target, target * options.proposal_temperature


def mass_bits(vocab_size: int) -> int:
    """The largest token of a row has the mass 2^mass_bits: a row's masses stay below 2^62."""
    return 61 - (vocab_size - 1).bit_length()


@dataclass(frozen=True)
class ProposalMasses:
    """Masses of some columns of some rows, and what importance weights need beside them."""

    proposal: torch.Tensor  # (rows, columns) int64
    target_sum: torch.Tensor  # (rows, 1) int64: of p's masses over the columns
    target: torch.Tensor  # (rows, columns) float32 scaled logits
    target_max: torch.Tensor  # (rows, 1) float32, of the whole vocabulary


def masses(
    target: torch.Tensor,
    proposal: torch.Tensor,
    target_max: torch.Tensor,
    proposal_max: torch.Tensor,
    bits: int,
) -> ProposalMasses:
    """A token that p has keeps at least one unit under q, so that its weight p / q stays exact."""
    target_masses = exp_masses(target, target_max, bits)
    proposal_masses = torch.maximum(
        exp_masses(proposal, proposal_max, bits), target_masses.clamp(max=1)
    )
    target_sum = target_masses.sum(1, keepdim=True)
    return ProposalMasses(proposal_masses, target_sum, target, target_max)


def ratios(
    masses: ProposalMasses,
    columns: torch.Tensor,
    target_total: torch.Tensor,
    total: torch.Tensor,
    bits: int,
    options: SampleOptions,
) -> torch.Tensor:
    """(rows, rounds) float64: p / q of drawn columns, or its logarithm up to a constant of the row.

    The logarithm, which neither overflows nor underflows, is for `self_normalize`. `total` and
    `target_total` are (rows, 1) sums over the whole vocabulary.
    """
    difference = masses.target.gather(1, columns).double() - masses.target_max.double()
    mass = masses.proposal.gather(1, columns).double()
    if options.self_normalize:
        return difference - mass.log()
    normaliser = target_total.double() * 2.0**-bits
    return (difference.exp() / normaliser) / (mass / total.double())


def exp_masses(logits: torch.Tensor, row_max: torch.Tensor, bits: int) -> torch.Tensor:
    """(rows, columns) int64: e^(logits - row_max) * 2^bits, as ExpMass of exp_mass.h."""
    difference = logits - row_max
    difference = torch.where(difference > FLOOR, difference, FLOOR)
    exponent = (difference * LOG2E).round_()
    rest = difference.sub_(exponent * LN2_HIGH).sub_(exponent * LN2_LOW)
    power = torch.full_like(rest, POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        power.mul_(rest).add_(coefficient)
    mantissa = power.mul_(rest).to(torch.int32).to(torch.int64).add_(1 << 30)
    shifts = exponent.neg_().to(torch.int64)
    halves = mantissa.bitwise_left_shift_(bits - 29).bitwise_right_shift_(shifts)
    return halves.add_(1).bitwise_right_shift_(1)
