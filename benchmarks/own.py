"""Caches of this library: their sizes on what their model was not trained on, and what to time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from folds import Fold
from layouts import Paper
from rates import Run
from samples import Sample
from sizes import SizeRow, cache_sizes

import sparselogits as sl

_SEQUENCES = 8  # of a batch
_POSITIONS = 4096  # of a call for random ones
_SINGLES = 256  # random positions that are read one by one in a run

Arrays = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Kind:
    """A codec and whether the input tokens are stored, and counted, too."""

    codec: str
    store_tokens: bool


KINDS = [Kind(codec, tokens) for codec in ("packed", "compact") for tokens in (False, True)]


@dataclass(frozen=True)
class Written:
    """A cache of the held-out part of a fold.

    Attributes:
        model: What it was written with; None where the codec has none.
        train: Millions of positions per second of CPU time, likewise.
    """

    kind: Kind
    test: Sample
    path: Path
    model: Any
    train: float | None
    sizes: SizeRow


def write_fold(fold: Fold, kind: Kind, scratch: Path) -> Written:
    """Trains a model on the one part, where the codec has one, and writes the other part."""
    name = f"{kind.codec}-{kind.store_tokens}-{fold.number}"
    model, train = None, None
    if kind.codec == "compact":
        source = scratch / f"train-{name}"
        fold.train.write(source, store_tokens=kind.store_tokens)
        start = time.process_time()
        model = sl.train_model(source)
        train = fold.train.num_positions / (time.process_time() - start) / 1e6
    path = scratch / name
    fold.test.write(path, model, codec=kind.codec, store_tokens=kind.store_tokens)
    sizes = cache_sizes(fold.test.name, kind.codec, kind.store_tokens, str(fold.number), path)
    return Written(kind, fold.test, path, model, train, sizes)


def runs_of(written: Written, scratch: Path, stack: ExitStack) -> dict[str, Run]:
    """What to time of a cache.

    encode: appending and committing the whole part, to a cache that `stack` closes.
    decode: `read_sequences` into CSR, 8 shuffled sequences a call.
    random: `read_positions` of 4,096 random positions. single: the same of one.
    Checksums are verified once, before the clock starts.
    """
    cache = sl.open(written.path)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, cache.num_positions, (4, _POSITIONS))
    singles = [picks[0, i : i + 1] for i in range(_SINGLES)]
    shuffled = batches(written.test)
    check_decoded(written.test, [csr(cache.read_sequences(batch)) for batch in shuffled])
    kind = written.kind
    config = written.test.config(codec=kind.codec, store_tokens=kind.store_tokens)
    writer = stack.enter_context(
        sl.CacheWriter(scratch / f"timed-{written.path.name}", config, model=written.model)
    )

    def encode() -> None:
        written.test.append_to(writer)
        writer.flush()

    positions = written.test.num_positions
    return {
        "encode": Run(encode, positions),
        "decode": Run(_each(cache.read_sequences, shuffled), positions),
        "random": Run(_each(cache.read_positions, picks), picks.size),
        "single": Run(_each(cache.read_positions, singles), _SINGLES),
    }


def memcpy_run(written: Written) -> Run:
    """A copy of the very arrays that "decode" returns into memory allocated before."""
    cache = sl.open(written.path)
    decoded = [csr(cache.read_sequences(batch)) for batch in batches(written.test)]
    columns = list(zip(*decoded, strict=True))
    buffers = [np.empty(max(map(len, column)), column[0].dtype) for column in columns]

    def copy() -> None:
        for arrays in decoded:
            for buffer, array in zip(buffers, arrays, strict=True):
                np.copyto(buffer[: len(array)], array)

    return Run(copy, written.test.num_positions)


def paper_runs(test: Sample) -> dict[str, Run]:
    """The paper's layout in NumPy, decoded in the same batches, each of them in one piece."""
    paper = Paper()
    stored = [paper.encode(test.select(batch)) for batch in batches(test)]
    check_decoded(test, [list(paper.decode(streams, test.rounds)) for streams in stored])
    return {
        "encode": Run(lambda: paper.encode(test), test.num_positions),
        "decode": Run(_each(lambda s: paper.decode(s, test.rounds), stored), test.num_positions),
    }


def batches(sample: Sample) -> list[npt.NDArray[np.int64]]:
    """Its sequences, shuffled."""
    order = np.random.default_rng(0).permutation(len(sample.tokens))
    return [order[i : i + _SEQUENCES] for i in range(0, len(order), _SEQUENCES)]


def csr(rows: sl.SparseLogits) -> Arrays:
    """The arrays that a read fills: offsets, ids, counts and, where stored, input tokens."""
    found = (rows.offsets, rows.token_ids, rows.counts, rows.input_ids)
    return [array for array in found if array is not None]


def check_decoded(sample: Sample, decoded: Sequence[Arrays]) -> None:
    """What is timed must be right: ids, counts and tokens of the batches, as they were written."""
    for batch, arrays in zip(batches(sample), decoded, strict=True):
        expected = sample.select(batch)
        sources = (expected.offsets, expected.token_ids, expected.counts, expected.tokens)
        for array, source in zip(arrays, sources, strict=False):
            assert np.array_equal(array, source.reshape(-1))


def _each(call: Callable[[Any], object], arguments: Sequence[Any]) -> Callable[[], None]:
    def run() -> None:
        for argument in arguments:
            call(argument)

    return run
