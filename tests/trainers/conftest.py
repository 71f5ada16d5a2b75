"""Makes the helper modules of this folder importable, and keeps every library off the network."""

import os
import sys
from pathlib import Path

import torch

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)
