"""One rank of test_meter_ranks.py: counts its part, adds up, prints what the total came to.

python meter_ranks_script.py RANK RANKS FILE       (FILE: where the ranks meet)
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any

import torch
import torch.distributed as dist

from sparselogits.torch.meters import AcceptanceMeter, CalibrationMeter

ROWS = 300


def make_rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn(ROWS, 20, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(0, 20, (ROWS,), generator=generator)


def measure(rank: int, ranks: int) -> tuple[CalibrationMeter, AcceptanceMeter]:
    """Meters of every `ranks`-th row from `rank` on."""
    student, teacher, labels = (rows[rank::ranks] for rows in make_rows())
    calibration, acceptance = CalibrationMeter(), AcceptanceMeter()
    calibration.update(student, labels=labels)
    acceptance.update(student, teacher)
    return calibration, acceptance


def outcome(calibration: CalibrationMeter, acceptance: AcceptanceMeter) -> dict[str, Any]:
    found, reliability = acceptance.compute(), calibration.compute()
    return {
        "ece": reliability.ece,
        "accuracy": reliability.accuracy,
        "labels": reliability.count,
        "rate": found.rate,
        "error": found.standard_error,
        "greedy": found.greedy_agreement,
        "positions": found.count,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, ranks, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{file}",
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=120),
    )
    meters = measure(rank, ranks)
    for meter in meters:
        meter.all_reduce()
    print(json.dumps(outcome(*meters)))
    dist.destroy_process_group()
