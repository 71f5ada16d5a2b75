"""Training objectives in one call shape: those of the RS-KD paper, and what it compares with.

    loss = objective(logits, targets, labels=labels, teacher_logits=teacher_logits)

`make_objective("top_k", k=12)` makes one by name; docs/objectives.md says which to use.
"""

from sparselogits.torch.objectives.dense import FullKD, LabelSmoothing, ReverseKD
from sparselogits.torch.objectives.hard_tokens import hard_token_weights, label_confidence
from sparselogits.torch.objectives.objective import Objective
from sparselogits.torch.objectives.registry import OBJECTIVES, make_objective
from sparselogits.torch.objectives.sparse_objective import (
    CrossEntropy,
    SampledKD,
    SparseObjective,
    target_entropy,
)
from sparselogits.torch.objectives.targets import (
    label_targets,
    sampled_targets,
    top_k_targets,
    top_p_targets,
)
from sparselogits.torch.objectives.top_tokens import GhostToken, SmoothedResidual, TopTokens

__all__ = [
    "OBJECTIVES",
    "CrossEntropy",
    "FullKD",
    "GhostToken",
    "LabelSmoothing",
    "Objective",
    "ReverseKD",
    "SampledKD",
    "SmoothedResidual",
    "SparseObjective",
    "TopTokens",
    "hard_token_weights",
    "label_confidence",
    "label_targets",
    "make_objective",
    "sampled_targets",
    "target_entropy",
    "top_k_targets",
    "top_p_targets",
]
