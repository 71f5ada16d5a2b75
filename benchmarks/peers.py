"""Layouts in general compressors: the sizes of a whole sample, and what to time.

Rank tables and dictionaries are learnt on the training part of each fold and used on its other
part; the held-out parts then follow each other in one file, so that the compressors, which learn as
they go, have as much to learn from as there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from compressors import Compressor, general_compressors, zstd
from folds import Fold
from layouts import Bytes, Csr, Layout, Paper, Planes, RankTable, Varint
from rates import Run, cpu_seconds
from samples import Sample
from sizes import SizeRow

_LAYOUTS: list[Layout] = [Paper(), Planes(), Varint()]
_FRAMED = Planes()  # where zstd is best


@dataclass(frozen=True)
class Measured:
    """One layout in one compressor.

    Attributes:
        encode: Millions of positions per second of CPU time from the sample to its bytes, in NumPy;
            taken once, as strong compressors take long.
        compress: The same without the layout.
        decode: From the bytes to CSR arrays, in NumPy; still to be timed.
        decompress: The same without the layout.
    """

    sizes: SizeRow
    encode: float
    compress: float
    decode: Run
    decompress: Run


@dataclass(frozen=True)
class _Piece:
    """What is laid out at once: a fold's held-out part, or one sequence of it."""

    sample: Sample
    table: RankTable


def measure_peers(sample: Sample, parts: Sequence[Fold]) -> Iterator[Measured]:
    """Every layout in every compressor, whole; and of zstd in frames of one sequence of 512
    positions, without and with a dictionary: the price of random access.
    """
    pieces = [_Piece(part.test, RankTable.learn(part.train)) for part in parts]
    for compressor in general_compressors():
        for layout in _LAYOUTS:
            tools = [compressor] * 3
            name = f"{compressor.name} {layout.name}"
            yield _measure(name, sample, pieces, layout, tools, in_frames=False)
    frames = [_Piece(one, piece.table) for piece in pieces for one in _sequences(piece.sample)]
    for learnt in (False, True):
        tools = []
        for part, piece in zip(parts, pieces, strict=True):
            tool = zstd(_train_frames(part, piece.table) if learnt else None)
            tools += [tool] * len(part.test.tokens)
        name = f"{tools[0].name} {_FRAMED.name}/512"
        yield _measure(name, sample, frames, _FRAMED, tools, in_frames=True)


def token_sizes(sample: Sample) -> Iterator[SizeRow]:
    """The input tokens alone, 16 bits each, in every compressor."""
    raw = sample.tokens.astype("<u2").tobytes()
    for compressor in general_compressors():
        nbytes = len(compressor.compress(raw)) / sample.num_positions
        name = f"{compressor.name} of tokens"
        yield SizeRow(sample.name, name, True, "all", sample.num_positions, 0, nbytes, 0, 0)


def _measure(
    name: str,
    sample: Sample,
    pieces: Sequence[_Piece],
    layout: Layout,
    tools: Sequence[Compressor],
    in_frames: bool,
) -> Measured:
    """One frame a piece, each with its tool; or one a stream, of all pieces."""
    streams: list[list[Bytes]] = []
    seconds = cpu_seconds(lambda: streams.extend(_laid_out(layout, pieces)))
    groups = streams if in_frames else [list(column) for column in zip(*streams, strict=True)]
    plain = [np.concatenate(group).tobytes() for group in groups]
    tools = tools[: len(plain)]
    frames: list[bytes] = []
    compressing = cpu_seconds(
        lambda: frames.extend(t.compress(data) for t, data in zip(tools, plain, strict=True))
    )
    lengths = [[len(stream) for stream in group] for group in groups]

    def decompress() -> list[bytes]:
        return [t.decompress(frame) for t, frame in zip(tools, frames, strict=True)]

    def decode() -> list[Csr]:
        found = [_cut(data, cuts) for data, cuts in zip(decompress(), lengths, strict=True)]
        by_piece = found if in_frames else zip(*found, strict=True)
        return [
            layout.decode(list(group), sample.rounds, piece.table)
            for piece, group in zip(pieces, by_piece, strict=True)
        ]

    for piece, decoded in zip(pieces, decode(), strict=True):
        _check(piece.sample, decoded)
    positions = sample.num_positions
    models = {id(tool): tool.model_bytes for tool in tools}
    learnt = (pieces[0].table.nbytes if layout.learns else 0) + max(models.values())
    nbytes = sum(map(len, frames)) / positions
    return Measured(
        SizeRow(sample.name, name, False, "all", positions, nbytes, 0, 0, learnt),
        positions / (seconds + compressing) / 1e6,
        positions / compressing / 1e6,
        Run(decode, positions),
        Run(decompress, positions),
    )


def _laid_out(layout: Layout, pieces: Sequence[_Piece]) -> Iterator[list[Bytes]]:
    return (layout.encode(piece.sample, piece.table) for piece in pieces)


def _sequences(sample: Sample) -> list[Sample]:
    return [sample.select(np.array([i])) for i in range(len(sample.tokens))]


def _train_frames(part: Fold, table: RankTable) -> list[bytes]:
    pieces = [_Piece(one, table) for one in _sequences(part.train)]
    return [np.concatenate(streams).tobytes() for streams in _laid_out(_FRAMED, pieces)]


def _cut(data: bytes, lengths: Sequence[int]) -> list[Bytes]:
    array = np.frombuffer(data, np.uint8)
    ends = np.cumsum([0, *lengths])
    return [array[a:b] for a, b in pairwise(ends)]


def _check(sample: Sample, decoded: Csr) -> None:
    """What is timed must be right."""
    offsets, ids, counts = decoded
    assert np.array_equal(offsets, sample.offsets)
    positions = np.repeat(np.arange(sample.num_positions), np.diff(offsets))
    order = np.lexsort((ids, positions))
    assert np.array_equal(ids[order], sample.token_ids)
    assert np.array_equal(counts[order], sample.counts)
