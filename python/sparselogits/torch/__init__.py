"""Training from a cache with PyTorch: batches, and losses over sparse targets."""

from sparselogits.torch.batch import Batch
from sparselogits.torch.collator import SparseLogitCollator
from sparselogits.torch.dataset import SparseLogitDataset
from sparselogits.torch.fused import fused_linear_sparse_kd_loss
from sparselogits.torch.head_lse import linear_lse
from sparselogits.torch.head_lse_loss import linear_lse_sparse_kd_loss
from sparselogits.torch.losses import sparse_kd_loss
from sparselogits.torch.map_dataset import SparseLogitMapDataset
from sparselogits.torch.plug_in import plug_in_sparse_kd_loss
from sparselogits.torch.targets import SparseTargets
from sparselogits.torch.vocab_parallel import sample_vocab_parallel
from sparselogits.torch.vocab_parallel_fused import vocab_parallel_fused_linear_sparse_kd_loss
from sparselogits.torch.vocab_parallel_loss import vocab_parallel_sparse_kd_loss

__all__ = [
    "Batch",
    "SparseLogitCollator",
    "SparseLogitDataset",
    "SparseLogitMapDataset",
    "SparseTargets",
    "fused_linear_sparse_kd_loss",
    "linear_lse",
    "linear_lse_sparse_kd_loss",
    "plug_in_sparse_kd_loss",
    "sample_vocab_parallel",
    "sparse_kd_loss",
    "vocab_parallel_fused_linear_sparse_kd_loss",
    "vocab_parallel_sparse_kd_loss",
]
