"""Sizes and rates of every codec, and of what general compressors make of the same draws.

One run, one table a sample of teacher rows. Sizes are bytes per position by section, and
cross-validated: models, rank tables and dictionaries are learnt on all folds but one, and the sizes
taken on that one. Caches are measured fold by fold: the mean, and the largest total less the
smallest. Of the others, the held-out parts of all folds are compressed as one file. Rates are
millions of positions per second of CPU time, so per core: medians of repeats that take turns, of
caches on the last fold, of others on the whole sample; training and what compressors need to encode
are taken once. The layouts of others are in NumPy here; "compress" and "decompress" leave them out,
which is the most that a faster layout could reach.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from codec_table import TARGETS, Line, measure, print_table
from lz4_data import lz4_data
from samples import load_samples
from sizes import write_csv
from wrapped import measure_wrapping, print_wrapping


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="without general compressors")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the sizes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--lz4",
        nargs="*",
        type=Path,
        metavar="CACHE",
        help="instead: what LZ4 does to packed blocks of several kinds of data, and of caches",
    )
    args = parser.parse_args()
    if args.folds < 2:
        parser.error(f"--folds {args.folds} is below 2")
    if args.csv is not None and args.quick:
        parser.error("--csv wants every row: leave out --quick")
    if args.lz4 is not None:
        kinds = lz4_data(load_samples(), args.lz4)
        wrappings = [measure_wrapping(name, write, args.repeats) for name, write in kinds]
        if args.json:
            print(json.dumps({"wrapping": [asdict(row) for row in wrappings]}, indent=2))
        else:
            print_wrapping(wrappings)
        return
    lines: list[Line] = []
    for sample in load_samples():
        print(f"{sample.name}: {sample.num_positions:,} positions", file=sys.stderr)
        found = measure(sample, args.folds, args.repeats, args.quick)
        if not args.json:
            print_table(sample, found)
        lines += found
    if not args.json:
        print(TARGETS)
    if args.csv is not None:
        write_csv(args.csv, [row for line in lines for row in line.sizes])
    if args.json:
        print(
            json.dumps({"folds": args.folds, "lines": [_plain(line) for line in lines]}, indent=2)
        )


def _plain(line: Line) -> dict[str, object]:
    sizes = [asdict(row) | {"total": row.total} for row in line.sizes]
    return {"codec": line.codec, "tokens": line.tokens, "sizes": sizes, "rates": line.rates}


if __name__ == "__main__":
    main()
