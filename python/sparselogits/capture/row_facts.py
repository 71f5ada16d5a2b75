"""What must be known of teacher rows to judge draws from them, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

#: Tokens are put into cells by their probability: cell j holds 2^-(j+1) < q <= 2^-j.
NUM_CELLS = 24

_LOGITS_PER_BLOCK = 1 << 21  # bounds temporaries to about 100 MiB


@dataclass(frozen=True)
class Entries:
    """Drawn tokens of some rows.

    Attributes:
        rows: (E,) int64, into the rows of the chunk.
        token_ids: (E,) int64.
        values: (E,) float64: counts, or importance weights times rounds.
    """

    rows: torch.Tensor
    token_ids: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, offsets: torch.Tensor, token_ids: torch.Tensor, values: torch.Tensor) -> Entries:
        """From CSR arrays."""
        lengths = torch.diff(offsets)
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
        return cls(rows, token_ids.to(torch.int64), values.to(torch.float64))


@dataclass(frozen=True)
class Judged:
    """Drawn tokens with what the teacher says of them; all (E,).

    Attributes:
        rows: int64.
        keys: int64: row and token in one number, equal for equal tokens of a row.
        counts: float64: how often the token was drawn; for importance weights, what the weight
            says of that.
        log_q: float64: log-probability under the distribution that was drawn from, in nats.
        log_p: float64: the same under the teacher's; equal without a proposal.
    """

    rows: torch.Tensor
    keys: torch.Tensor
    counts: torch.Tensor
    log_q: torch.Tensor
    log_p: torch.Tensor

    def per_cell(self, num_rows: int) -> torch.Tensor:
        """(R, NUM_CELLS) float64: counts by cell."""
        cells = self.counts.new_zeros(num_rows * NUM_CELLS)
        cells.index_add_(0, self.rows * NUM_CELLS + cell_of(self.log_q), self.counts)
        return cells.view(num_rows, NUM_CELLS)

    def per_row(self, values: torch.Tensor, num_rows: int) -> torch.Tensor:
        """(R,) float64: the sum of counts times `values` (E,)."""
        return self.counts.new_zeros(num_rows).index_add_(0, self.rows, self.counts * values)


class RowFacts:
    """Facts of a chunk of rows, of which q is what was drawn from: q = softmax(t · logits / T).

    Args:
        logits: (R, V) float32, on a device with float64.
        temperature: T.
        proposal_temperature: t.

    Attributes:
        cells: (R, NUM_CELLS) float64: the mass of q in each cell.
        entropy: (R,) float64, of q in nats.
        variance: (R,) float64, of log q under q.
    """

    def __init__(
        self, logits: torch.Tensor, temperature: float, proposal_temperature: float
    ) -> None:
        self._logits = logits
        self._temperature = temperature
        self._power = proposal_temperature
        step = max(1, _LOGITS_PER_BLOCK // logits.shape[1])
        parts = [self._block(logits[i : i + step]) for i in range(0, len(logits), step)]
        self.cells, columns = (torch.cat(part) for part in zip(*parts, strict=True))
        self.entropy, self.variance, self._norm_p, self._norm_q, self._norm_half = columns.unbind(1)

    def judge(self, entries: Entries, shift: int = 0) -> Judged:
        """What the row `shift` rows further down says of drawn tokens; it must exist."""
        rows = entries.rows + shift
        scaled = self._logits[rows, entries.token_ids].double() / self._temperature
        log_p = scaled - self._norm_p[rows]
        log_q = self._power * scaled - self._norm_q[rows]
        counts = entries.values
        if self._power != 1.0:  # weights are counts times p / q
            counts = counts * (log_q - log_p).exp()
        keys = entries.rows * self._logits.shape[1] + entries.token_ids
        return Judged(entries.rows, keys, counts, log_q, log_p)

    def flat_ratio(self, judged: Judged) -> torch.Tensor:
        """(E,) float64: r / q with r the mean of q and the flatter sqrt(q) / sum sqrt(q)."""
        return 0.5 + 0.5 * torch.exp(-0.5 * judged.log_q - self._norm_half[judged.rows])

    def _block(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = logits.double() / self._temperature
        norm_p = scaled.logsumexp(1)
        drawn_from = scaled if self._power == 1.0 else scaled * self._power
        norm_q = drawn_from.logsumexp(1)
        log_q = drawn_from - norm_q[:, None]
        q = log_q.exp()
        cells = q.new_zeros((len(q), NUM_CELLS)).scatter_add_(1, cell_of(log_q), q)
        surprise = log_q.neg().masked_fill_(q == 0, 0)  # their product with q is 0 there
        entropy = (q * surprise).sum(1)
        variance = (q * (surprise - entropy[:, None]).square()).sum(1)
        norm_half = (0.5 * log_q).logsumexp(1)
        return cells, torch.stack([entropy, variance, norm_p, norm_q, norm_half], 1)


def cell_of(log_q: torch.Tensor) -> torch.Tensor:
    """int64: the cell of a log-probability in nats; the last one holds all that is rarer."""
    halvings = (log_q * (-1 / math.log(2))).clamp(0, NUM_CELLS - 1)
    return halvings.to(torch.int64)
