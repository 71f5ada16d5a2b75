"""Makes the helper modules of this folder importable: importlib mode leaves sys.path alone."""

import os
import sys
from pathlib import Path

import torch

if not torch.cuda.is_available():  # before anything imports triton
    os.environ["TRITON_INTERPRET"] = "1"

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(2)
