"""Damage at rest: flipped bits, cuts, frames and files that are not where they belong.

Shards of each kind are small, so that every bit can be flipped; scale 1.0 tries every one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from damage import frames
from report import Row, Tally

import sparselogits as sl
from sparselogits.manifest import MANIFEST_NAME

TEST_SCALE = 0.01

KINDS = {
    "counts with tokens": {},
    "counts without tokens": {"store_tokens": False},
    "float32 weights": {"proposal_temperature": 0.8},
    "bfloat16 weights without tokens": {
        "proposal_temperature": 0.8,
        "weight_dtype": "bfloat16",
        "store_tokens": False,
    },
}


def run(scale: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        rows = []
        for number, kind in enumerate(KINDS):
            cache = DamagedCache(Path(directory) / str(number), kind)
            rows += [cache.flips(scale), cache.cuts(scale)]
        cache = DamagedCache(Path(directory) / "frames", "counts with tokens")
        rows += [cache.frames(), cache.files(), cache.manifest_flips(scale)]
        return rows


class DamagedCache:
    """A cache of two shards of equal shape, damaged in one way after the other."""

    def __init__(self, path: Path, kind: str) -> None:
        self.kind = kind
        self.path = path / "cache"
        self.other = path / "other"
        write(self.path, kind, first_id=0)
        write(self.other, kind, first_id=100)
        self.shards = sorted(self.path.glob("*.slc"))
        self.content = content(sl.open(self.path))

    def flips(self, scale: float) -> Row:
        return self._flips(f"one bit of a shard flipped: {self.kind}", self.shards[0], scale)

    def manifest_flips(self, scale: float) -> Row:
        return self._flips("one bit of the manifest flipped", self.path / MANIFEST_NAME, scale)

    def _flips(self, fault: str, path: Path, scale: float) -> Row:
        tally = Tally(fault, "every bit" * (scale >= 1))
        data = path.read_bytes()
        for bit in spread(8 * len(data), scale):
            broken = bytearray(data)
            broken[bit // 8] ^= 1 << bit % 8
            self.judge({path: bytes(broken)}, tally, f"bit {bit}")
        return tally.row()

    def cuts(self, scale: float) -> Row:
        tally = Tally(f"shard cut short: {self.kind}", "every length" * (scale >= 1))
        data = self.shards[0].read_bytes()
        for length in spread(len(data), scale):
            self.judge({self.shards[0]: data[:length]}, tally, f"cut to {length}")
        return tally.row()

    def frames(self) -> Row:
        tally = Tally("frames removed, repeated, exchanged; within a shard, between two")
        first, second = self.shards
        data, foreign = first.read_bytes(), second.read_bytes()
        spans, foreign_spans = (
            [(at, at + length) for _, at, length in frames(file)] for file in (first, second)
        )
        for number, (start, end) in enumerate(spans):
            frame = data[start:end]
            self.judge({first: data[:start] + data[end:]}, tally, f"frame {number} removed")
            self.judge({first: data[:end] + frame + data[end:]}, tally, f"frame {number} repeated")
            for other, (a, b) in enumerate(foreign_spans):
                name = f"frame {number} replaced by frame {other} of the other shard"
                self.judge({first: data[:start] + foreign[a:b] + data[end:]}, tally, name)
        for (a, b), (c, d) in combinations(spans, 2):
            moved = data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
            self.judge({first: moved}, tally, f"frames at {a} and {c} exchanged")
        for (a, b), (c, d) in zip(spans, foreign_spans, strict=True):
            both = {
                first: data[:a] + foreign[c:d] + data[b:],
                second: foreign[:c] + data[a:b] + foreign[d:],
            }
            self.judge(both, tally, f"frames at {a} exchanged between the shards")
        return tally.row()

    def files(self) -> Row:
        tally = Tally("shards and manifests exchanged or missing")
        first, second = self.shards
        manifest = self.path / MANIFEST_NAME
        foreign = self.other / MANIFEST_NAME
        a, b = first.read_bytes(), second.read_bytes()
        self.judge({first: b, second: a}, tally, "two shards of the cache exchanged")
        self.judge({first: b}, tally, "a shard twice")
        self.judge({first: (self.other / first.name).read_bytes()}, tally, "shard of another cache")
        self.judge({manifest: foreign.read_bytes()}, tally, "manifest of another cache")
        self.judge({first: b""}, tally, "an empty shard")
        self.judge({first: None}, tally, "a missing shard")
        self.judge({manifest: None}, tally, "a missing manifest")
        return tally.row()

    def judge(self, damage: dict[Path, bytes | None], tally: Tally, what: str) -> None:
        """Applies the damage, lets `verify` and a plain reader look at it, takes it back."""
        before = {path: path.read_bytes() for path in damage}
        for path, data in damage.items():
            path.unlink()
            if data is not None:
                path.write_bytes(data)
        if all(damage[path] == data for path, data in before.items()):
            return  # two equal frames
        read, deep = self.read(), self.verify()
        if "silent" in (read, deep):
            tally.lose(f"{what}: not noticed by {'verify' if deep == 'silent' else 'a reader'}")
        elif deep == "same":
            tally.harmless += 1
        elif deep == "detected":
            tally.detected += 1
        else:
            tally.lose(f"{what}: {deep}")
        for path, data in before.items():
            path.write_bytes(data)

    def verify(self) -> str:
        try:
            sl.verify(self.path, num_threads=1)
        except sl.FormatError as error:
            return "detected" if error.path and error.field else f"no place: {error}"
        except sl.CacheIOError as error:
            return "detected" if error.filename else f"no file: {error}"
        return "same" if self.read() == "same" else "silent"

    def read(self) -> str:
        try:
            return "same" if content(sl.open(self.path)) == self.content else "silent"
        except (sl.FormatError, sl.CacheIOError):
            return "detected"


def write(path: Path, kind: str, first_id: int) -> None:
    """Two shards, several blocks and commits in each; the two hold other draws of equal shape."""
    rng = np.random.default_rng(first_id)
    config = sl.CacheConfig(vocab_size=300, rounds=4, codec="packed", **KINDS[kind])  # type: ignore[arg-type]
    for _ in range(2):  # the second time goes on in a shard of its own
        with sl.CacheWriter(path, config, {"teacher": f"of {first_id}"}, resume=True) as writer:
            for length in (9, 0, 70, 8):
                low, high = rng.integers(0, 150, length), rng.integers(150, 300, length)
                values = {
                    "counts": np.full(2 * length, 2),
                    "weights": rng.random(2 * length),
                }
                writer.append(
                    rng.integers(0, 300, length),
                    np.arange(0, 2 * length + 1, 2),
                    np.stack([low, high], 1).ravel(),
                    sequence_id=first_id + writer.num_sequences,
                    **{config.value_kind: values[config.value_kind]},
                )
                writer.flush()


def content(cache: sl.Cache) -> tuple[object, ...]:
    """All that a reader gets."""
    read = cache.read_sequences(np.arange(len(cache)))
    arrays = (read.offsets, read.token_ids, read.counts, read.weights, read.input_ids)
    table = (cache.sequence_ids, cache.sequence_starts, cache.fingerprints)
    facts = (cache.config, tuple(cache.metadata.items()), cache.complete)
    return (*(None if array is None else array.tobytes() for array in (*arrays, *table)), *facts)


def spread(count: int, scale: float) -> Iterator[int]:
    """A share of range(count), evenly spread; its last part varies, so that all bits occur."""
    step = max(1, round(1 / scale))
    return iter(range(count)) if step == 1 else (i for i in range(count) if i * 7919 % step == 0)
