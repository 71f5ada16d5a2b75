"""The lines of the table of codecs: measured for one sample, and printed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from folds import Fold, folds
from own import KINDS, memcpy_run, paper_runs, runs_of, write_fold
from peers import measure_peers, token_sizes
from rates import Run, median_rates
from samples import Sample
from sizes import SizeRow, mean_row, spread
from wrapped import unwrap_run, wrapped_row

from sparselogits.inspect import PAPER_BITS_PER_ENTRY

_RATES = ("train", "encode", "decode", "compress", "decompress", "random", "single")
TARGETS = (
    "targets at 12 ids a position: packed decode >= 10, >= 1/30 of memcpy; compact decode >= 3.5, "
    "with tokens >= 2.5,\n>= 1/5 of packed; encode >= 1; random (4,096 positions a call) >= 0.3, "
    "single (one a call) >= 0.05"
)


@dataclass
class Line:
    """One line.

    Attributes:
        sizes: One row, or one a fold; none for what stores nothing.
        rates: By name, see `own.runs_of` and `peers.Measured`.
        runs: What of them is still to be timed.
    """

    codec: str
    tokens: bool
    sizes: list[SizeRow] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


def measure(sample: Sample, num_folds: int, repeats: int, quick: bool) -> list[Line]:
    """Every codec on one sample; `quick` leaves out the general compressors."""
    parts = list(folds(sample, num_folds))
    lines = [_paper(sample, parts[-1])]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as writers:
        lines += _caches(parts, Path(scratch), writers)
        if not quick:
            lines += _peers(sample, parts)
        runs = {(i, name): run for i, line in enumerate(lines) for name, run in line.runs.items()}
        for (i, name), rate in median_rates(runs, repeats).items():
            lines[i].rates[name] = rate
    return lines


def print_table(sample: Sample, lines: Sequence[Line]) -> None:
    """The lines for people."""
    print(
        f"{sample.name}: {sample.ids_per_position:.1f} ids a position; bytes per position (total ± "
        "half the spread of the folds); millions of positions per second and core"
    )
    print(
        f"{'codec':<28}{'tokens':>7}{'records':>9}{'tokens':>8}{'overhead':>9}{'total':>8}"
        f"{'±':>6}{'model KB':>10}  " + "".join(f"{name:>{_width(name)}}" for name in _RATES)
    )
    for line in lines:
        print(f"{line.codec:<28}{_sizes(line)}  {_rates(line)}".rstrip())
    print(flush=True)


def _paper(sample: Sample, last: Fold) -> Line:
    nbytes = PAPER_BITS_PER_ENTRY / 8 * sample.ids_per_position
    sizes = SizeRow(
        sample.name, "paper 24-bit", False, "all", sample.num_positions, nbytes, 0, 0, 0
    )
    return Line(sizes.codec, False, [sizes], runs=paper_runs(last.test))


def _caches(parts: Sequence[Fold], scratch: Path, writers: ExitStack) -> list[Line]:
    lines = []
    for kind in KINDS:
        written = [write_fold(part, kind, scratch) for part in parts]
        last = written[-1]
        line = Line(kind.codec, kind.store_tokens, [one.sizes for one in written])
        line.runs = runs_of(last, scratch, writers)
        if last.train is not None:
            line.rates["train"] = last.train
        lines.append(line)
        if kind.codec == "packed":
            wrapped = [wrapped_row(one.sizes, one.path) for one in written]
            line = Line(wrapped[0].codec, kind.store_tokens, wrapped)
            line.runs["decompress"] = unwrap_run(last.path)
            lines.append(line)
            if not kind.store_tokens:
                lines.insert(0, Line("memcpy of CSR", False, runs={"decode": memcpy_run(last)}))
    return lines


def _peers(sample: Sample, parts: Sequence[Fold]) -> list[Line]:
    lines = []
    for peer in measure_peers(sample, parts):
        rates = {"encode": peer.encode, "compress": peer.compress}
        runs = {"decode": peer.decode, "decompress": peer.decompress}
        lines.append(Line(peer.sizes.codec, False, [peer.sizes], rates, runs))
    lines += [Line(row.codec, True, [row]) for row in token_sizes(sample)]
    return lines


def _sizes(line: Line) -> str:
    if not line.sizes:
        return " " * 57
    row = mean_row(line.sizes)
    half = f"{spread(line.sizes) / 2:.2f}" if len(line.sizes) > 1 else ""
    model = f"{row.model_bytes / 1000:.1f}" if row.model_bytes else ""
    return (
        f"{'yes' if row.tokens else 'no':>7}{row.records:>9.2f}{row.tokens_bytes:>8.2f}"
        f"{row.overhead:>9.2f}{row.total:>8.2f}{half:>6}{model:>10}"
    )


def _rates(line: Line) -> str:
    cells = {name: f"{line.rates[name]:.2f}" if name in line.rates else "" for name in _RATES}
    return "".join(f"{cell:>{_width(name)}}" for name, cell in cells.items())


def _width(name: str) -> int:
    return max(8, len(name) + 1)
