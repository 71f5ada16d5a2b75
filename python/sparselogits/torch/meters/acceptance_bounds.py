"""AcceptanceBoundsMeter: what the draws of a cache can say about acceptance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparselogits import checks
from sparselogits.errors import InvalidArgumentError
from sparselogits.torch.arguments import check_targets
from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.host_memory import is_host
from sparselogits.torch.meters.acceptance import standard_error
from sparselogits.torch.meters.meter import Meter, check_positive, rows_and_mask
from sparselogits.torch.row_blocks import row_blocks, scaled
from sparselogits.torch.rows import Rows, compute_dtype, unfold
from sparselogits.torch.targets import SparseTargets


@dataclass(frozen=True)
class AcceptanceBounds:
    """Attributes:
    lower: The expected acceptance rate is at least the expectation of this.
    lower_error: Its standard error over positions.
    upper: And at most the expectation of this; None without `rounds`.
    upper_error: Its standard error.
    count: Number of positions.
    """

    lower: float
    lower_error: float
    upper: float | None
    upper_error: float | None
    count: int


class AcceptanceBoundsMeter(Meter):
    """Bounds of the acceptance rate from a cache, where no teacher runs.

    No estimate from N draws of p is unbiased for Σ min(p, q): the expectation of any function of
    counts is a polynomial in p, and this is none. What there is:

    - lower: Σ min(w, q) with the weights w of the cache. E[w] = p and min is concave, so its
      expectation is at most the rate (Jensen). It holds for every sampler, and closes in on the
      rate as the rounds grow; tokens that were not drawn count as never accepted.
    - upper: 1 - rate is the largest p(S) - q(S) over sets S of tokens, so that any S that the draws
      it is judged by did not choose gives at most that. S: the tokens that all draws but one favour
      over q; judged by the one; averaged over which. It needs independent draws
      (`sampler="multinomial"`) and their number.

    The bounds are far apart where q has much mass on tokens that are rarely drawn.
    `AcceptanceMeter` is exact.

    Args:
        rounds: N of a multinomial cache, at least 2, for the upper bound. None: the lower bound
            alone, of any cache.
    """

    def __init__(self, rounds: int | None = None) -> None:
        self.rounds = None if rounds is None else checks.integer("rounds", rounds, 2, 65535)
        zero = torch.zeros((), dtype=torch.float64)
        names = ("lower", "lower_squares", "upper", "upper_squares")
        super().__init__(
            {"rounds": self.rounds},
            {**dict.fromkeys(names, zero), "count": zero.long()},
        )

    def update(
        self,
        logits: Tensor,
        targets: SparseTargets,
        *,
        mask: Tensor | None = None,
        temperature: float = 1.0,
    ) -> None:
        """Counts one batch, of positions that the student was not trained on.

        Args:
            logits: (B, S, V) or (R, V) of the student.
            targets: R rows of a cache. Empty rows do not count.
            mask: (B, S) or (R,) bool, True counts.
            temperature: Divides the student's logits; the cache has the teacher's.

        Raises:
            InvalidArgumentError: With `rounds`, a weight that is no multiple of 1 / rounds
                (checked in host memory).
        """
        temperature = checks.positive_float("temperature", temperature)
        rows, keep, _ = rows_and_mask(logits, mask)
        check_targets(targets, rows, "logits", rows.shape[1])
        entries = unfold(targets, keep, torch.float64)
        with without_autocast(rows.device):
            q = _student_probabilities(rows, entries, temperature)
        lower = torch.where(entries.keep, _row_sums(entries, torch.minimum(entries.weight, q)), 0)
        upper = torch.zeros_like(lower)
        if self.rounds is not None:
            _check_counts(entries.weight * self.rounds, self.rounds)
            upper = torch.where(entries.keep, _upper(entries, q, self.rounds), 0)
        self._add(
            lower=lower.sum(),
            lower_squares=lower.square().sum(),
            upper=upper.sum(),
            upper_squares=upper.square().sum(),
            count=entries.keep.sum(),
        )

    def compute(self) -> AcceptanceBounds:
        """Of all positions so far. Waits for the device.

        Raises:
            InvalidArgumentError: No position was counted.
        """
        sums = {name: value.item() for name, value in self._sums.items()}
        count = int(sums["count"])
        check_positive(count, type(self).__name__)
        (lower, lower_error), (upper, upper_error) = (
            (sums[name] / count, standard_error(sums[name], sums[f"{name}_squares"], count))
            for name in ("lower", "upper")
        )
        if self.rounds is None:
            return AcceptanceBounds(lower, lower_error, None, None, count)
        return AcceptanceBounds(lower, lower_error, upper, upper_error, count)


def _student_probabilities(logits: Tensor, entries: Rows, temperature: float) -> Tensor:
    """(E,) float64 probabilities that the student gives to the entries."""
    dtype = compute_dtype(logits.dtype)
    q = torch.empty_like(entries.weight)
    for rows in row_blocks(logits, dtype):
        z = scaled(logits[rows], temperature, dtype)
        part = entries.narrow(rows.start, rows.stop)
        at = z[part.row, part.token_id] - z.logsumexp(-1)[part.row]
        q[int(entries.bounds[rows.start]) : int(entries.bounds[rows.stop])] = at.double().exp()
    return q


def _upper(entries: Rows, q: Tensor, rounds: int) -> Tensor:
    """(R,) 1 - mean over draws d of (1[d in S] - q(S)), S chosen by the other draws."""
    counts = (entries.weight * rounds).round()
    others = rounds - 1
    favoured = (counts > others * q).double()
    favoured_by_others = (counts - 1 > others * q).double()  # for the token that was drawn itself
    mass = _row_sums(entries, favoured * q)[entries.row]
    mass_of_others = mass + (favoured_by_others - favoured) * q
    return 1 - _row_sums(entries, counts / rounds * (favoured_by_others - mass_of_others))


def _row_sums(entries: Rows, values: Tensor) -> Tensor:
    return torch.zeros_like(entries.total).index_add_(0, entries.row, values)


def _check_counts(counts: Tensor, rounds: int) -> None:
    if not is_host(counts.device):
        return
    wrong = ((counts - counts.round()).abs() > 1e-2).nonzero()
    if wrong.numel():
        weight = float(counts[wrong[0, 0]]) / rounds
        raise InvalidArgumentError(
            f"targets holds the weight {weight:.6g}, which is no multiple of 1 / rounds = "
            f"1 / {rounds}"
        )
