"""How many classes of positions pay: sizes, models and rates of `compact` by their number.

Sizes are those of held-out parts, cross-validated (folds.py); "all" is everything but the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from folds import Fold, folds
from own import batches
from rates import Run, median_rates
from samples import Sample, load_samples
from sizes import cache_sizes

import sparselogits as sl

_CLASSES = (1, 4, 16, 32, 64, 128)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--classes", type=int, nargs="+", default=_CLASSES)
    parser.add_argument("--store-tokens", action="store_true")
    args = parser.parse_args()
    rows = [
        measure(sample, number, args.folds, args.store_tokens)
        for sample in load_samples()
        for number in args.classes
    ]
    if args.json:
        print(json.dumps({"rows": rows}, indent=2))
        return
    print(f"{'sample':<22}{'classes':>8}{'B/position':>12}{'model KB':>10}{'decode M/s':>12}")
    for row in rows:
        print(
            f"{row['sample']:<22}{row['classes']:>8}{row['bytes_per_position']:>12.2f}"
            f"{row['model_bytes'] / 1000:>10.0f}{row['decode']:>12.2f}"
        )


def measure(sample: Sample, classes: int, count: int, store_tokens: bool) -> dict[str, Any]:
    """Mean over the folds; the rate of the last one."""
    parts = [_fold(fold, classes, store_tokens) for fold in folds(sample, count)]
    return {
        "sample": sample.name,
        "classes": classes,
        "store_tokens": store_tokens,
        "bytes_per_position": statistics.mean(part[0] for part in parts),
        "model_bytes": round(statistics.mean(part[1] for part in parts)),
        "decode": parts[-1][2],
    }


def _fold(fold: Fold, classes: int, store_tokens: bool) -> tuple[float, int, float]:
    with tempfile.TemporaryDirectory() as scratch:
        source, path = Path(scratch) / "train", Path(scratch) / "test"
        fold.train.write(source, store_tokens=store_tokens)
        model = sl.train_model(source, num_classes=classes)
        fold.test.write(path, model, codec="compact", store_tokens=store_tokens)
        sizes = cache_sizes(fold.test.name, "compact", store_tokens, str(fold.number), path)
        cache = sl.open(path)
        shuffled = batches(fold.test)

        def decode() -> None:
            for batch in shuffled:
                cache.read_sequences(batch)

        rates = median_rates({"decode": Run(decode, fold.test.num_positions)}, 5)
        return sizes.total, sizes.model_bytes, rates["decode"]


if __name__ == "__main__":
    main()
