"""Distillation from a cache in Hugging Face's Trainer, and in what derives from it.

Importing this needs transformers and accelerate: `pip install "sparselogits[hf]"`.
"""

from sparselogits.integrations.transformers.arguments import cache_dataset
from sparselogits.integrations.transformers.student import SparseKDOptions
from sparselogits.integrations.transformers.trainer import SparseKDTrainerMixin
from sparselogits.torch.collator import SparseLogitCollator
from sparselogits.torch.trainer_inputs import trainer_inputs

__all__ = [
    "SparseKDOptions",
    "SparseKDTrainerMixin",
    "SparseLogitCollator",
    "cache_dataset",
    "trainer_inputs",
]
