"""The log-sum-exp of benchmarks/cpp/log_sum_exp.cc, compiled and called through ctypes."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

_HERE = Path(__file__).resolve().parent
_LIBRARY = _HERE.parent / "build" / "log_sum_exp.so"
_FLAGS = ("-O3", "-std=c++20", "-ffp-contract=off", "-Wno-psabi", "-shared", "-fPIC")

Rows = npt.NDArray[np.float32]
LogSumExp = Callable[[Rows], npt.NDArray[np.float64]]


def lanes_of_this_processor() -> int:
    """How many float32 lanes the sampler uses here: those of AVX-512, AVX2 or 128-bit vectors."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    words = set(flags.split())
    if {"avx512f", "avx512dq", "avx512vl", "avx512bw"} <= words:
        return 16
    return 8 if "avx2" in words else 4


def log_sum_exp(passes: str, compiler: str = "c++") -> LogSumExp:
    """log(sum(exp(row))) of (P, V) float32 rows, V a multiple of 256, on one thread.

    Args:
        passes: "two_passes", the maximum first, or "one_pass", tile by tile.
        compiler: Called once.
    """
    name = f"log_sum_exp_{passes}_{lanes_of_this_processor()}"
    function = getattr(_library(compiler), name)
    function.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    function.restype = None

    def call(rows: Rows) -> npt.NDArray[np.float64]:
        out = np.empty(len(rows), np.float64)
        function(rows.ctypes.data, rows.shape[0], rows.shape[1], out.ctypes.data)
        return out

    return call


@cache
def _library(compiler: str) -> ctypes.CDLL:
    _LIBRARY.parent.mkdir(exist_ok=True)
    source = _HERE / "cpp" / "log_sum_exp.cc"
    include = f"-I{_HERE.parent / 'src'}"
    subprocess.run([compiler, *_FLAGS, include, str(source), "-o", str(_LIBRARY)], check=True)
    return ctypes.CDLL(str(_LIBRARY))
