"""How a request is to be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int | None = 16
    detokenize: bool = True
    prompt_logprob_token_ids: np.ndarray | None = None
    skip_reading_prefix_cache: bool | None = None
    extra_args: dict[str, Any] | None = None
