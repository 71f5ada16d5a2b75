"""Training from a cache with PyTorch: batches, and losses over sparse targets."""

from sparselogits.torch.batch import Batch
from sparselogits.torch.dataset import SparseLogitDataset
from sparselogits.torch.fused import fused_linear_sparse_kd_loss
from sparselogits.torch.losses import sparse_kd_loss
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.vocab_parallel import sample_vocab_parallel

__all__ = [
    "Batch",
    "SparseLogitDataset",
    "SparseTargets",
    "fused_linear_sparse_kd_loss",
    "sample_vocab_parallel",
    "sparse_kd_loss",
]
