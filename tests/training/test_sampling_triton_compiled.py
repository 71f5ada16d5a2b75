"""What the Triton compiler makes of the kernels; it needs no GPU for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

EXACT = ("max", "min", "setp", "selp", "cvt")  # nothing is rounded, or it is truncated
SCRIPT = Path(__file__).parent / "triton_compile_script.py"


@cache
def float_operations(capability: int) -> dict[str, dict[str, int]]:
    result = subprocess.run(
        [sys.executable, SCRIPT, str(capability)],
        env=os.environ | {"TRITON_INTERPRET": "0"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    operations: dict[str, dict[str, int]] = json.loads(result.stdout)
    return operations


@pytest.mark.parametrize("capability", [80, 90])
class TestCompiled:
    @pytest.mark.parametrize("kernel", ["statistics", "tokens"])
    def test_every_float_operation_is_rounded_on_its_own(
        self, kernel: str, capability: int
    ) -> None:
        """`.rn` also forbids ptxas to contract, and no operation flushes subnormals to zero."""
        operations = set(float_operations(capability)[kernel])
        exact = {name for name in operations if name.split(".")[0] in EXACT}
        assert operations - exact == {"add.rn.f32", "mul.rn.f32", "sub.rn.f32", "div.rn.f32"}
        assert not any("ftz" in name for name in operations)

    def test_uniforms_are_integers(self, capability: int) -> None:
        assert float_operations(capability)["scaled_uniforms"] == {}

    def test_fusion_would_show(self, capability: int) -> None:
        assert "fma.rn.f32" in float_operations(capability)["tokens with fusion"]
