"""Compiles the kernels of the losses for GPUs that need not be there; prints facts as JSON.

python triton_loss_compile_script.py CAPABILITY      (80: A100, 90: H100); {kernel: facts}
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparselogits.torch import head_triton
from sparselogits.torch.kernels import head_kernels, row_kernels

ROWS: dict[str, str] = {
    "logits": "*{dtype}",
    "row_stride": "i32",
    "column_stride": "i32",
    "width": "i32",
    "keep": "*i1",
    "total": "*fp32",
    "bounds": "*i64",
    "token_ids": "*i64",
    "weights": "*fp32",
    "temperature": "fp32",
    "loss_scale": "fp32",
    "gradient_scale": "*fp32",
    "losses": "*fp32",
    "entry_gradient": "*fp32",
    "gradient": "*{dtype}",
    "gradient_row_stride": "i32",
    "gradient_column_stride": "i32",
}
HEAD: dict[str, str] = {
    "x": "*{dtype}",
    "x_row_stride": "i32",
    "x_stride": "i32",
    "weight": "*{dtype}",
    "weight_row_stride": "i32",
    "weight_stride": "i32",
    "bias": "*{dtype}",
    "temperature": "fp32",
    "softcap": "fp32",
    "num_rows": "i32",
    "width": "i32",
    "depth": "i32",
}
LSE = {**HEAD, "tiles_per_part": "i32", "partial": "*fp32"}
GRADIENT = {
    **HEAD,
    "lse": "*fp32",
    "coefficient": "*fp32",
    "gradient": "*{dtype}",
    "gradient_row_stride": "i32",
}
UNIT_STRIDES = ("column_stride", "gradient_column_stride", "x_stride", "weight_stride")
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def facts(
    function: Any, signature: dict[str, str], constants: dict[str, Any], dtype: str, capability: int
) -> dict[str, Any]:
    """What the compiler made of a kernel; ptxas accepted its PTX."""
    options = {name: constants.pop(name) for name in OPTIONS if name in constants}
    units = {name: 1 for name in UNIT_STRIDES if name in signature}
    types = {name: each.format(dtype=dtype) for name, each in signature.items()}
    types |= dict.fromkeys([*constants, *units], "constexpr")
    # Launches specialise pointers and sizes that 16 divides: that is what vector loads need.
    divisible = [
        (place,)
        for place, (name, each) in enumerate(signature.items())
        if types[name] != "constexpr" and (each.startswith("*") or each == "i32")
    ]
    compiled = triton.compile(
        ASTSource(
            function,
            types,
            {**constants, **units},
            {place: [["tt.divisibility", 16]] for place in divisible},
        ),
        target=GPUTarget("cuda", capability, 32),
        options=options,
    )
    ptx = compiled.asm["ptx"]
    assert compiled.asm["cubin"]
    return {
        "shared": compiled.metadata.shared,
        "products": sorted(set(re.findall(r"\b(wgmma\.mma_async|mma\.sync)\b", ptx))),
        "tf32": "tf32" in ptx,
        "barriers": len(re.findall(r"bar\.sync|barrier\.sync", ptx)),
        "vector_loads": len(re.findall(r"ld\.global[\w.]*\.v4", ptx)),
        "bfloat16_rounding": sorted(set(re.findall(r"cvt\.(\w+)\.bf16(?:x2)?\.f32", ptx))),
    }


def main() -> None:
    capability = int(sys.argv[1])
    found = {}
    for dtype, name in DTYPES.items():
        row = {"SCALED": True, "WITH_GRADIENT": True, "COLUMNS": 16_384, "ENTRIES": 64}
        row |= {"num_warps": 32, "enable_fp_fusion": True}
        found[f"row {dtype}"] = facts(
            row_kernels.loss_and_gradient,
            ROWS,
            {**row, "num_warps": 32, "enable_fp_fusion": True},
            dtype,
            capability,
        )
        tile = head_triton._tile(getattr(torch, name))
        head = {"HAS_BIAS": True, "HAS_SOFTCAP": True, "WIDEN": False, **tile}
        for kernel, signature in (("partial_lse", LSE), ("softmax_gradient", GRADIENT)):
            found[f"{kernel} {dtype}"] = facts(
                getattr(head_kernels, kernel), signature, dict(head), dtype, capability
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
