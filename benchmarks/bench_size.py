"""Bytes per position, everything included, by section, beside the paper's 24-bit layout.

Overhead is every byte of every file that is neither record nor input token. An LZ4-wrapped block
counts as records, though it holds its tokens and directory too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from samples import Sample, load_samples

from sparselogits.shard_check import verify_shard

_RECORDS = ("presence", "counts", "entry_numbers", "ids", "weights", "wrapped_blocks")
_PAPER_BYTES_PER_ENTRY = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    rows = [
        measure(sample, store_tokens) for sample in load_samples() for store_tokens in (False, True)
    ]
    if args.json:
        print(json.dumps({"caches": rows}, indent=2))
        return
    print("bytes per position; overhead is everything but records and tokens, in bits per position")
    print(
        f"{'sample':<22}{'ids':>6}{'tokens':>8}{'files':>9}{'records':>9}{'tokens':>8}"
        f"{'overhead':>10}{'paper':>8}{'ratio':>7}"
    )
    for row in rows:
        print(
            f"{row['sample']:<22}{row['ids_per_position']:>6.1f}"
            f"{'yes' if row['store_tokens'] else 'no':>8}{row['bytes_per_position']:>9.2f}"
            f"{row['record_bytes']:>9.2f}{row['token_bytes']:>8.2f}{row['overhead_bits']:>10.3f}"
            f"{row['paper_bytes']:>8.2f}{row['paper_over_records']:>7.2f}"
        )


def measure(sample: Sample, store_tokens: bool) -> dict[str, Any]:
    """The figures of one cache."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cache"
        sample.write(path, store_tokens=store_tokens)
        nbytes = sum(file.stat().st_size for file in path.iterdir())
        shards = [verify_shard(file)["sections"] for file in path.glob("*.slc")]
    positions = sample.num_positions
    sections = {name: sum(shard[name] for shard in shards) / 8 / positions for name in shards[0]}
    records = sum(sections[name] for name in _RECORDS)
    tokens = sections["tokens"]
    paper = _PAPER_BYTES_PER_ENTRY * sample.ids_per_position
    return {
        "sample": sample.name,
        "ids_per_position": sample.ids_per_position,
        "store_tokens": store_tokens,
        "bytes_per_position": nbytes / positions,
        "record_bytes": records,
        "token_bytes": tokens,
        "overhead_bits": 8 * (nbytes / positions - records - tokens),
        "paper_bytes": paper,
        "paper_over_records": paper / records,
        "section_bytes": sections,
    }


if __name__ == "__main__":
    main()
