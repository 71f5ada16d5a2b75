"""vLLM as a teacher, EXPERIMENTAL: the engine's workers draw at prompt positions.

Call `enable()`, make a `vllm.LLM`, and give it to `capture_with_vllm`. Works with one release of
vLLM (`VLLM_VERSION`), whose private parts it relies on, and has never run on a GPU: docs/vllm.md
says what was checked.
"""

from __future__ import annotations

from sparselogits.integrations.vllm.assumptions import check_assumptions
from sparselogits.integrations.vllm.client import capture_with_vllm
from sparselogits.integrations.vllm.plugin import enable, register
from sparselogits.integrations.vllm.relied_on import VLLM_VERSION

__all__ = ["VLLM_VERSION", "capture_with_vllm", "check_assumptions", "enable", "register"]
