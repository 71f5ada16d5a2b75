"""Compiles the sampling kernels for GPUs that need not be there; prints their float32 operations.

python triton_compile_script.py CAPABILITY      (80: A100, 90: H100); JSON {kernel: {operation: n}}
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparselogits.sampling_torch import triton_kernels as kernels

LOGITS = {
    "logits": "*bf16",
    "row_stride": "i64",
    "column_stride": "i32",
    "num_columns": "i32",
    "lead": "i32",
    "num_tiles": "i32",
    "temperature": "fp32",
    "tile_max": "*fp32",
    "SCALED": "constexpr",
}
SIGNATURES: dict[str, dict[str, str]] = {
    "statistics": {**LOGITS, "tile_sum": "*i64", "TILES": "constexpr"},
    "tokens": {
        **LOGITS,
        "tiles_hit": "*i64",
        "run_ends": "*i64",
        "offsets": "*i64",
        "rounds": "i32",
        "found": "*i32",
        "POINTS": "constexpr",
    },
    "scaled_uniforms": {
        "words": "*i64",
        "totals": "*i64",
        "seed": "u64",
        "offset": "i64",
        "num_rows": "i32",
        "num_draws": "i32",
        "scaled": "*i64",
        "BLOCKS": "constexpr",
    },
}
CONSTANTS = {"SCALED": True, "TILES": 4, "POINTS": 8, "BLOCKS": 128}


def float_operations(kernel: str, capability: int, **options: Any) -> dict[str, int]:
    """How often each PTX instruction on float32 occurs; ptxas then has to accept the PTX."""
    signature = SIGNATURES[kernel]
    constants = {name: value for name, value in CONSTANTS.items() if name in signature}
    compiled = triton.compile(
        ASTSource(getattr(kernels, kernel), signature, constants),
        target=GPUTarget("cuda", capability, 32),
        options=options,
    )
    assert compiled.asm["cubin"]
    return Counter(re.findall(r"\b((?:\w+\.)+f32(?:\.\w+)*)\b", compiled.asm["ptx"]))


def main() -> None:
    capability = int(sys.argv[1])
    found = {
        name: float_operations(name, capability, enable_fp_fusion=False) for name in SIGNATURES
    }
    found["tokens with fusion"] = float_operations("tokens", capability, enable_fp_fusion=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
