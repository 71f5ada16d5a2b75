"""The golden shard that the package wrote, with a model that it trained: real tables.

    python tests/format/golden_trained.py      # writes what does not exist yet

Unlike the others it cannot be made again: the writer draws a uuid, and the trainer may change.
The expected content is what was given to the writer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from golden import GOLDEN
from golden_valid import Numbers, Rows, content
from random_caches import write
from reference_decoder import decode_header, dumps

import conftest  # noqa: F401  the reference decoder's place
import sparselogits as sl

NAME = "compact_trained"
CONFIG = {
    "vocab_size": 600, "rounds": 50, "sampler": "multinomial", "value_kind": "counts",
    "weight_dtype": "float32", "store_tokens": True, "temperature": 1.0,
    "tokenizer_fingerprint": None,
}  # fmt: skip
HELD_BACK = 120  # positions of the golden shard


def sequences(length: int) -> Rows:
    """Positions of three kinds that follow one another, with ids that each kind prefers."""
    numbers = Numbers(80)
    kind, tokens, records = 0, [0], []
    for _ in range(length):
        kind = (kind + (numbers.below(5) == 0)) % 3
        k = 1 + numbers.below((3, 12, 20)[kind])
        spread = (12, 60, 600)[kind]
        near = [min(numbers.below(spread) for _ in range(3)) for _ in range(k)]
        ids = sorted({(150 * kind + n * (7 if kind else 1)) % 600 for n in near})
        counts = numbers.counts(50, len(ids))
        if numbers.below(2):
            counts = [51 - len(ids), *[1] * (len(ids) - 1)]
        records.append([] if numbers.below(40) == 0 else list(zip(ids, counts, strict=True)))
        tokens.append(ids[numbers.below(len(ids))] if numbers.below(4) else numbers.below(600))
    return [(7, tokens[:-1], records)]


def main() -> None:
    """Trains on most of the positions, and writes the rest."""
    if (GOLDEN / "valid" / f"{NAME}.slc").exists():
        sys.exit("it is there, and stays as it is")
    ((identity, tokens, records),) = sequences(4000)
    train: Rows = [(1, tokens[HELD_BACK:], records[HELD_BACK:])]
    rows: Rows = [(identity, tokens[:HELD_BACK], records[:HELD_BACK])]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        write(path / "train", CONFIG | {"codec": "packed"}, train)
        model = sl.train_model(path / "train", num_classes=3)
        write(path / "cache", CONFIG | {"codec": "compact"}, rows, model=model)
        data = (path / "cache" / "shard-000000.slc").read_bytes()
    header = decode_header(data)
    assert header["model_digest"] == int(model.digest, 16)
    header = {name: value for name, value in header.items() if name != "header_crc"}
    header["sampler"] = header["sampler"].encode()
    files = {
        f"{NAME}.slc": data,
        model.file_name: model.to_bytes(),
        f"{NAME}.json": dumps(content(header, {"note": "é"}, rows)).encode() + b"\n",
    }
    for name, of_file in files.items():
        (GOLDEN / "valid" / name).write_bytes(of_file)
        print(name, len(of_file), "bytes")


if __name__ == "__main__":
    main()
