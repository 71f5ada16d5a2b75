"""Writes the golden files of format 1.x that do not exist yet. It never rewrites one.

    python formats/make_golden.py            # adds what is missing
    python formats/make_golden.py --check    # writes nothing; says whether what exists is the same

The bytes come from tests/format/reference_encoder.py, not from the C++ writer, and the expected
content from what was encoded, not from a decoder. See README.md before adding a case.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden" / "v1"
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "format")]

import compact_shards  # noqa: E402
import golden_compact  # noqa: E402
import golden_compact_invalid  # noqa: E402
import golden_invalid  # noqa: E402
import golden_valid  # noqa: E402
from reference_algorithms import crc32c  # noqa: E402
from reference_decoder import ALIGNMENT, dumps  # noqa: E402
from reference_encoder import ShardEncoder  # noqa: E402


def golden_cache() -> Iterator[tuple[str, bytes]]:
    """A whole cache of two shards, and its expected content."""
    rows, contents = [], []
    for name, data, sequences in golden_valid.cache_shards():
        header = ShardEncoder(shard_uuid=data[24:40]).header
        contents.append(golden_valid.content(header, {"teacher": "golden"}, sequences))
        records = [record for _, _, part in sequences for record in part]
        rows.append({
            "file": name, "uuid": data[24:40].hex(), "bytes": len(data),
            "sequences": len(sequences), "positions": len(records),
            "entries": sum(map(len, records)), "sha256": hashlib.sha256(data).hexdigest(),
        })  # fmt: skip
        yield f"valid/cache/{name}", data
    manifest = {
        "format": "sparselogits", "version": [1, 0], "alignment": ALIGNMENT, "complete": True,
        "config": {
            "vocab_size": 49152, "rounds": 50, "sampler": "multinomial", "temperature": 1.0,
            "proposal_temperature": 1.0, "value_kind": "counts", "weight_dtype": "float32",
            "codec": "packed", "store_tokens": True, "tokenizer_fingerprint": None,
        },
        "metadata": {"teacher": "golden"}, "shards": rows,
    }  # fmt: skip
    checked = dumps(manifest).removesuffix("\n}").encode() + b",\n  "
    manifest["crc32c"] = f"{crc32c(checked):08x}"
    yield "valid/cache/manifest.json", dumps(manifest).encode() + b"\n"
    expected = {"manifest": manifest, "shards": contents}
    yield "valid/cache.json", dumps(expected).encode() + b"\n"


def golden_files() -> Iterator[tuple[str, bytes]]:
    """The path under golden/v1 and the bytes of every golden file."""
    for name, make in (golden_valid.CASES | golden_compact.CASES).items():
        data, content = make()
        yield f"valid/{name}.slc", data
        yield f"valid/{name}.json", dumps(content).encode() + b"\n"
    for name, model in compact_shards.MODELS.items():
        yield f"valid/{name}", model
    for name, case in (golden_invalid.CASES | golden_compact_invalid.CASES).items():
        expected = {"error": case.error, "field": case.field, "within": list(case.within)}
        if case.also:
            expected["also"] = list(case.also)
        if case.file:
            expected["file"] = case.file
        for file, model in case.models:
            yield f"invalid/{file}", model
        yield f"invalid/{name}.slc", case.data
        yield f"invalid/{name}.json", json.dumps(expected).encode() + b"\n"
    yield from golden_cache()


def main() -> int:
    """Adds or checks; 1 where an existing file is not what the cases say now."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check_only = parser.parse_args().check
    added, different = [], []
    made: dict[str, bytes] = {}
    for name, data in golden_files():
        if made.setdefault(name, data) != data:
            raise ValueError(f"two cases make {name}, each another one")
        path = GOLDEN / name
        if path.exists():
            if path.read_bytes() != data:
                different.append(name)
        else:
            added.append(name)
            if not check_only:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    print(f"{len(added)} files {'missing' if check_only else 'added'}, {len(different)} different")
    for name in different:
        print(f"  {name}: the file stays; the case that made it has changed", file=sys.stderr)
    return 1 if different or (check_only and added) else 0


if __name__ == "__main__":
    sys.exit(main())
