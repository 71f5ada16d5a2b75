"""Peak memory of a capture against that of a forward with all logits: the table of docs/capture.md.

Each figure is a process of its own: how far its peak resident memory lies above what it held when
the run began. The teacher is a Llama with random weights, a small body and a large vocabulary, so
that logits are what there is to see.

    python benchmarks/bench_capture_memory.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

_VOCABULARIES = (32_768, 131_072)
_LENGTHS = (256, 1024, 4096)
_KINDS = ("forward with logits", "capture", "capture, no overlap")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--one", nargs=3, metavar=("KIND", "V", "S"), help=argparse.SUPPRESS)
    one = parser.parse_args().one
    if one:
        print(peak_above_start(one[0], int(one[1]), int(one[2])))
        return
    print(f"{'peak above start, MiB':<24} {'V':>8}" + "".join(f"  S = {s:>5}" for s in _LENGTHS))
    for vocabulary in _VOCABULARIES:
        for kind in _KINDS:
            peaks = [in_own_process(kind, vocabulary, length) for length in _LENGTHS]
            print(f"{kind:<24} {vocabulary:>8}" + "".join(f"  {peak:>9,.0f}" for peak in peaks))


def in_own_process(kind: str, vocabulary: int, length: int) -> float:
    command = [sys.executable, __file__, "--one", kind, str(vocabulary), str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_above_start(kind: str, vocabulary: int, length: int) -> float:
    """MiB of one run over two windows of `length` tokens, one at a time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import sparselogits as sl

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=length,
        )
    ).eval()
    windows = np.random.default_rng(0).integers(0, vocabulary, (2, length))
    with tempfile.TemporaryDirectory() as scratch:
        sl.capture(model, windows[:, :64], f"{scratch}/warm", batch_size=1, chunk_rows=64)
        start = resident()
        if kind == "forward with logits":
            for window in windows:
                with torch.inference_mode():
                    model(input_ids=torch.from_numpy(window)[None], use_cache=False)
        else:
            overlap = kind == "capture"
            sl.capture(model, windows, f"{scratch}/cache", batch_size=1, overlap=overlap)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - start


def resident() -> float:
    """MiB of this process now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    main()
