"""What one step of the engine runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class InputBatch:
    req_ids: list[str]
    idx_mapping_np: np.ndarray
    num_scheduled_tokens: np.ndarray
    query_start_loc_np: np.ndarray
    prefill_len_np: np.ndarray
    num_computed_prefill_tokens_np: np.ndarray
