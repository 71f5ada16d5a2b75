"""Makes the helper modules of this folder, and the tiny teachers of `training`, importable."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

_HERE = Path(__file__).parent

for _folder in (_HERE.parent / "training", _HERE):
    sys.path.insert(0, str(_folder))


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the workers have it: other numbers of threads can move the last bits of logits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
