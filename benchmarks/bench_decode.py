"""Decoding speed: packed caches beside a memcpy of the same output and the paper's layout.

One run measures, for each sample, millions of positions per second of CPU time (`process_time`, so
per core): (a) `read_sequences` into CSR, 8 sequences of 512 a call; (b) a copy of the very arrays
that (a) returns into memory allocated before; (c) a NumPy decode of the paper's layout (RS-KD,
section "storage": 17-bit id and 7-bit count in 3 bytes) into the same arrays; (d) `read_positions`
of random positions, 4,096 a call. Checksums are verified once, before the clock starts. Repeats of
the four take turns; the median is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from samples import Sample, load_samples

import sparselogits as sl

_SEQUENCES = 8
_POSITIONS = 4096
_SECONDS = 0.15
_TARGET_MPS = 10.0
_TARGET_OF_MEMCPY = 1 / 30

Arrays = list[npt.NDArray[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--store-tokens", action="store_true", help="decode input tokens too")
    args = parser.parse_args()
    rows = [measure(sample, args.repeats, args.store_tokens) for sample in load_samples()]
    if args.json:
        print(json.dumps({"samples": rows}, indent=2))
        return
    names = ("packed", "memcpy", "paper_numpy", "random_positions")
    print("millions of positions per second and core, median of", args.repeats)
    print(f"{'sample':<22}{'ids':>6}" + "".join(f"{name:>18}" for name in names) + "   of memcpy")
    for row in rows:
        rates = "".join(f"{row['millions_per_second'][name]:>18.2f}" for name in names)
        share = 1 / row["packed_over_memcpy"]
        print(f"{row['sample']:<22}{row['ids_per_position']:>6.1f}{rates}   1/{share:.1f}")
    print("targets at 12 ids: packed >= 10, and >= 1/30 of the memcpy")


def measure(sample: Sample, repeats: int, store_tokens: bool) -> dict[str, Any]:
    """The figures of one sample."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cache"
        sample.write(path, store_tokens=store_tokens)
        cache = sl.open(path)
        rng = np.random.default_rng(0)
        order = rng.permutation(len(cache))
        batches = [order[i : i + _SEQUENCES] for i in range(0, len(order), _SEQUENCES)]
        decoded = [_arrays(cache.read_sequences(batch)) for batch in batches]
        _check(sample, batches, decoded)
        picks = rng.integers(0, cache.num_positions, (len(batches), _POSITIONS))
        runs: dict[str, tuple[Callable[[], None], int]] = {
            "packed": (lambda: _read_all(cache, batches), sample.num_positions),
            "memcpy": (_copier(decoded), sample.num_positions),
            "paper_numpy": (_paper_decoder(sample, batches), sample.num_positions),
            "random_positions": (lambda: _pick_all(cache, picks), picks.size),
        }
        rates = _rates(runs, repeats)
    share = rates["packed"] / rates["memcpy"]
    return {
        "sample": sample.name,
        "ids_per_position": sample.ids_per_position,
        "store_tokens": store_tokens,
        "millions_per_second": rates,
        "packed_over_memcpy": share,
        "packed_over_paper_numpy": rates["packed"] / rates["paper_numpy"],
        "meets_targets": rates["packed"] >= _TARGET_MPS and share >= _TARGET_OF_MEMCPY,
    }


def _rates(runs: dict[str, tuple[Callable[[], None], int]], repeats: int) -> dict[str, float]:
    loops = {name: max(1, round(_SECONDS / _seconds(run))) for name, (run, _) in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, (run, _positions) in runs.items():
            seconds[name].append(_seconds(run, loops[name]) / loops[name])
    return {name: runs[name][1] / statistics.median(seconds[name]) / 1e6 for name in runs}


def _seconds(run: Callable[[], None], loops: int = 1) -> float:
    start = time.process_time()
    for _ in range(loops):
        run()
    return max(time.process_time() - start, 1e-6)


def _read_all(cache: Any, batches: list[Any]) -> None:
    for batch in batches:
        cache.read_sequences(batch)


def _pick_all(cache: Any, picks: npt.NDArray[np.int64]) -> None:
    for positions in picks:
        cache.read_positions(positions)


def _arrays(rows: Any) -> Arrays:
    found = (rows.offsets, rows.token_ids, rows.counts, rows.input_ids)
    return [array for array in found if array is not None]


def _copier(decoded: list[Arrays]) -> Callable[[], None]:
    columns = list(zip(*decoded, strict=True))
    buffers = [np.empty(max(map(len, column)), column[0].dtype) for column in columns]

    def run() -> None:
        for arrays in decoded:
            for buffer, array in zip(buffers, arrays, strict=True):
                np.copyto(buffer[: len(array)], array)

    return run


def _paper_decoder(sample: Sample, batches: list[Any]) -> Callable[[], None]:
    packed = sample.token_ids | sample.counts << 17
    stored = packed.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].copy()
    length = sample.tokens.shape[1]

    def decode(sequence: int) -> Arrays:
        offsets = sample.offsets[sequence * length : (sequence + 1) * length + 1]
        raw = stored[offsets[0] : offsets[-1]]
        words = raw[:, 0] | raw[:, 1].astype(np.int32) << 8 | raw[:, 2].astype(np.int32) << 16
        return [offsets - offsets[0], words & 0x1FFFF, (words >> 17).astype(np.uint16)]

    def run() -> None:
        for batch in batches:
            parts = [decode(sequence) for sequence in batch]
            for column in zip(*parts, strict=True):
                np.concatenate(column)

    lone = decode(0)
    assert np.array_equal(lone[1], sample.token_ids[: len(lone[1])])
    return run


def _check(sample: Sample, batches: list[Any], decoded: list[Arrays]) -> None:
    """What is timed must be right: ids and counts as they were written."""
    length = sample.tokens.shape[1]
    for batch, arrays in zip(batches, decoded, strict=True):
        bounds = [sample.offsets[[s * length, (s + 1) * length]] for s in batch]
        for array, source in ((arrays[1], sample.token_ids), (arrays[2], sample.counts)):
            assert np.array_equal(array, np.concatenate([source[a:b] for a, b in bounds]))


if __name__ == "__main__":
    main()
