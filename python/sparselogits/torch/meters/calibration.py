"""CalibrationMeter: is a student as often right as it is sure?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparselogits import checks
from sparselogits.errors import InvalidArgumentError
from sparselogits.reliability import Reliability, ReliabilityBin
from sparselogits.torch.arguments import check_targets, flatten_labels
from sparselogits.torch.autocast import without_autocast
from sparselogits.torch.batch import IGNORED_LABEL
from sparselogits.torch.meters.meter import (
    FIXED_POINT_BITS,
    Meter,
    check_positive,
    fixed_point,
    rows_and_mask,
)
from sparselogits.torch.meters.teacher_rows import probability_of, teacher_rows
from sparselogits.torch.row_blocks import row_blocks, scaled
from sparselogits.torch.rows import compute_dtype
from sparselogits.torch.targets import SparseTargets

BINNINGS = ("equal_width", "equal_mass")
_CELLS_PER_BIN = 4096  # bounds of bins of equal mass lie on a grid that fine


class CalibrationMeter(Meter):
    """Expected calibration error of the most likely token, and its reliability diagram.

    Guo et al. 2017; the RS-KD paper's ECE. Confidences are counted in `num_bins` · 4096 cells, of
    which bins of equal width and of (almost) equal mass are made when asked for. All sums are
    integers: the result does not depend on the order or partition of the data.

    Args:
        num_bins: 1 to 1000.
    """

    def __init__(self, num_bins: int = 15) -> None:
        self.num_bins = checks.integer("num_bins", num_bins, 1, 1000)
        cells = torch.zeros(self.num_bins * _CELLS_PER_BIN, dtype=torch.int64)
        sums = {name: cells.clone() for name in ("count", "confidence", "accuracy")}
        super().__init__({"num_bins": self.num_bins}, {**sums, "not_finite": cells[:1].clone()})

    def update(
        self,
        logits: Tensor,
        *,
        labels: Tensor | None = None,
        targets: SparseTargets | None = None,
        teacher_logits: Tensor | None = None,
        mask: Tensor | None = None,
        temperature: float = 1.0,
    ) -> None:
        """Counts one batch, against exactly one of three judges.

        Args:
            logits: (B, S, V) or (R, V) of the student.
            labels: (B, S) or (R,) next tokens; rows of -100 do not count. Right is who names it.
            targets: R rows of a cache. Accuracy is the weight of the student's token: an unbiased
                estimate of the probability that the teacher gives it, on positions that the student
                was not trained on. Empty rows do not count.
            teacher_logits: (B, S, V') or (R, V'): that probability itself, without the noise of
                labels.
            mask: (B, S) or (R,) bool, True counts.
            temperature: Divides the student's logits.

        Raises:
            InvalidArgumentError: None or several judges; a shape, dtype or device is wrong.
        """
        given = [x is not None for x in (labels, targets, teacher_logits)]
        if sum(given) != 1:
            raise InvalidArgumentError(
                f"{sum(given)} of labels, targets and teacher_logits were given; it must be one"
            )
        temperature = checks.positive_float("temperature", temperature)
        rows, keep, leading = rows_and_mask(logits, mask)
        with without_autocast(rows.device):
            token_id, confidence = _most_likely(rows, temperature)
            flat = flatten_labels(labels, 0.0, leading, rows.device)
            if flat is not None:
                keep = keep & (flat != IGNORED_LABEL)
                accuracy = (token_id == flat).float()
            elif targets is not None:
                check_targets(targets, rows, "logits", rows.shape[1])
                keep = keep & (targets.offsets.diff() > 0)
                accuracy = _weight_of(targets, token_id)
            else:
                assert teacher_logits is not None
                accuracy = _probability_of(teacher_rows(teacher_logits, rows), token_id)
            self._count(confidence, accuracy, keep)

    def compute(self, binning: str = "equal_width") -> Reliability:
        """The reliability of all positions so far. Waits for the device.

        Args:
            binning: "equal_width": `num_bins` equal parts of [0, 1]. "equal_mass": bins that hold
                about as many positions each (adaptive calibration error); fewer than `num_bins`
                where more than a bin's worth of positions lies within one cell.

        Raises:
            InvalidArgumentError: No position was counted, or some had logits that are not finite.
        """
        checks.choice("binning", binning, BINNINGS)
        not_finite = int(self._sums["not_finite"])
        if not_finite:
            raise InvalidArgumentError(
                f"the most likely token of {not_finite} positions has no probability: their logits "
                "hold NaN or infinity"
            )
        count, confidence, accuracy = (
            self._sums[name].cpu().numpy() for name in ("count", "confidence", "accuracy")
        )
        check_positive(int(count.sum()), type(self).__name__)
        if count.max() >= 1 << (63 - FIXED_POINT_BITS):
            raise InvalidArgumentError(
                f"{count.max()} positions have the same confidence; sums of "
                f"{1 << (63 - FIXED_POINT_BITS)} overflow"
            )
        if binning == "equal_width":
            ends = np.arange(1, self.num_bins + 1) * _CELLS_PER_BIN
        else:
            ends = _ends_of_equal_mass(count, self.num_bins)
        starts = np.concatenate([[0], ends[:-1]])
        unit = 2.0**-FIXED_POINT_BITS
        bins = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            inside = int(count[start:end].sum())
            if inside:
                of_bin = [float(v[start:end].sum()) * unit / inside for v in (confidence, accuracy)]
                bins.append(ReliabilityBin(start / len(count), end / len(count), inside, *of_bin))
        return Reliability(binning, tuple(bins))

    def _count(self, confidence: Tensor, accuracy: Tensor, keep: Tensor) -> None:
        finite = confidence.isfinite() & accuracy.isfinite()
        counted = keep & finite
        cells = self._sums["count"].numel()
        cell = (torch.where(counted, confidence, 0).double() * cells).long().clamp(max=cells - 1)
        empty = torch.zeros(cells, dtype=torch.int64, device=cell.device)
        self._add(
            count=empty.index_add(0, cell, counted.long()),
            confidence=empty.index_add(0, cell, fixed_point(torch.where(counted, confidence, 0))),
            accuracy=empty.index_add(0, cell, fixed_point(torch.where(counted, accuracy, 0))),
            not_finite=(keep & ~finite).sum().reshape(1),
        )


def _most_likely(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(R,) the most likely tokens and their probabilities."""
    dtype = compute_dtype(logits.dtype)
    token_id = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    confidence = torch.empty(len(logits), dtype=dtype, device=logits.device)
    for rows in row_blocks(logits, dtype):
        z = scaled(logits[rows], temperature, dtype)
        largest, token_id[rows] = z.max(-1)
        confidence[rows] = 1 / z.sub_(largest[:, None]).exp_().sum(-1)
    return token_id, confidence


def _weight_of(targets: SparseTargets, token_id: Tensor) -> Tensor:
    """(R,) the weight that each row gives to one token."""
    row = torch.repeat_interleave(targets.offsets.diff(), output_size=targets.num_entries)
    of_token = torch.where(targets.token_ids == token_id[row], targets.weights, 0)
    return of_token.new_zeros(len(token_id)).index_add_(0, row, of_token)


def _probability_of(teacher: Tensor, token_id: Tensor) -> Tensor:
    dtype = compute_dtype(teacher.dtype)
    found = torch.empty(len(teacher), dtype=dtype, device=teacher.device)
    for rows in row_blocks(teacher, dtype):
        found[rows] = probability_of(teacher[rows].to(dtype), token_id[rows])
    return found


def _ends_of_equal_mass(count: np.ndarray, num_bins: int) -> np.ndarray:
    """Cells where bins end: behind the cell in which each has its share of the positions."""
    so_far = np.cumsum(count)
    # Rounded up in integers: the last share is all positions, exactly, and none is empty.
    shares = -(-so_far[-1] * np.arange(1, num_bins + 1) // num_bins)
    ends = np.unique(np.searchsorted(so_far, shares, side="left") + 1)
    ends[-1] = len(count)
    return ends
