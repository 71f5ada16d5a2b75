"""Quality meters of a student: calibration, gradient angle, speculative acceptance.

    meter = CalibrationMeter()
    for batch in held_out:
        meter.update(student(batch.input_ids), labels=batch.labels)
    meter.compute().ece

docs/meters.md says what each one measures.
"""

from sparselogits.reliability import Reliability, ReliabilityBin
from sparselogits.torch.meters.acceptance import Acceptance, AcceptanceMeter
from sparselogits.torch.meters.acceptance_bounds import AcceptanceBounds, AcceptanceBoundsMeter
from sparselogits.torch.meters.calibration import CalibrationMeter
from sparselogits.torch.meters.gradients import (
    GradientAngle,
    GradientAngleMeter,
    MeanGradientAngle,
    compare_gradients,
    gradient_angle,
    gradient_of,
)
from sparselogits.torch.meters.meter import Meter

__all__ = [
    "Acceptance",
    "AcceptanceBounds",
    "AcceptanceBoundsMeter",
    "AcceptanceMeter",
    "CalibrationMeter",
    "GradientAngle",
    "GradientAngleMeter",
    "MeanGradientAngle",
    "Meter",
    "Reliability",
    "ReliabilityBin",
    "compare_gradients",
    "gradient_angle",
    "gradient_of",
]
