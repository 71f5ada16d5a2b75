"""What the Triton compiler makes of the losses' kernels; it needs no GPU for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "triton_loss_compile_script.py"
HEAD_KERNELS = ("partial_lse", "softmax_gradient")
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}  # what a block of threads may have


@cache
def compiled(capability: int) -> dict[str, dict[str, Any]]:
    result = subprocess.run(
        [sys.executable, SCRIPT, str(capability)],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    facts: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return facts


@pytest.mark.parametrize("capability", SHARED_BYTES)
class TestCompiled:
    def test_every_kernel_fits(self, capability: int) -> None:
        found = compiled(capability)
        kernels = ("row", *HEAD_KERNELS)
        assert set(found) == {f"{k} {dtype}" for k in kernels for dtype in ("bf16", "fp32")}
        assert all(facts["shared"] <= SHARED_BYTES[capability] for facts in found.values())

    @pytest.mark.parametrize("kernel", HEAD_KERNELS)
    def test_bfloat16_products_run_on_tensor_cores(self, kernel: str, capability: int) -> None:
        product = {80: "mma.sync", 90: "wgmma.mma_async"}[capability]
        assert compiled(capability)[f"{kernel} bf16"]["products"] == [product]

    @pytest.mark.parametrize("kernel", HEAD_KERNELS)
    def test_float32_products_are_not_rounded_to_tf32(self, kernel: str, capability: int) -> None:
        facts = compiled(capability)[f"{kernel} fp32"]
        assert facts["products"] == []
        assert not facts["tf32"]

    @pytest.mark.parametrize("kernel", ["row", "softmax_gradient"])
    def test_gradients_are_rounded_to_the_nearest(self, kernel: str, capability: int) -> None:
        """The interpreter truncates, so that no test of values could tell."""
        assert compiled(capability)[f"{kernel} bf16"]["bfloat16_rounding"] == ["rn"]

    @pytest.mark.parametrize("dtype", ["bf16", "fp32"])
    def test_rows_are_loaded_16_bytes_at_a_time(self, dtype: str, capability: int) -> None:
        assert compiled(capability)[f"row {dtype}"]["vector_loads"] >= 4
