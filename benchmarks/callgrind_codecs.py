"""Instructions per position of every codec, counted by valgrind: the same on noisy machines.

A small program decodes a shard of the last fold, or encodes its records, once and three times; the
difference, halved, leaves out opening, checksums of the first touch and whatever else happens once.
Encoding includes all that a writer does: checks of the input, fingerprints, checksums, trying LZ4.
valgrind has AVX2 and no AVX-512. Counts depend on the compiler and the C library: compare those of
one machine.
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from folds import folds
from own import KINDS, write_fold
from samples import load_samples

_HERE = Path(__file__).resolve().parent
_BUILD = _HERE.parent / "build" / "benchmarks"
_COLUMNS = ("codec", "sample", "tokens", "direction", "instructions_per_position", "compiler")
_TOTAL = re.compile(r"Collected : (\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--csv", type=Path, default=_HERE / "instructions.csv", metavar="FILE")
    parser.add_argument("--folds", type=int, default=4)
    args = parser.parse_args()
    program = build()
    rows = list(measure(program, args.folds))
    with args.csv.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    for row in rows:
        print("{:<10}{:<22}{:>4}{:>9}{:>9}  {}".format(*row))


def build() -> Path:
    """Compiles the program and the core as releases are."""
    configure = ["cmake", "-S", _HERE / "cpp", "-B", _BUILD, "-DCMAKE_BUILD_TYPE=Release"]
    subprocess.run(configure, check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", _BUILD, "-j2"], check=True, stdout=sys.stderr)
    return _BUILD / "shard_loop"


def measure(program: Path, num_folds: int) -> Iterator[tuple[str, str, str, str, int, str]]:
    """The rows of the CSV."""
    compiler = _compiler()
    for sample in load_samples():
        *_, last = folds(sample, num_folds)
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as scratch:
                written = write_fold(last, kind, Path(scratch))
                (shard,) = written.path.glob("*.slc")
                files = [str(file) for file in written.path.glob("*.slm")]
                for direction in ("decode", "encode"):
                    once, thrice = (
                        _count([str(program), direction, str(shard), repeats, *files])
                        for repeats in ("1", "3")
                    )
                    each = round((thrice - once) / (2 * last.test.num_positions))
                    tokens = "yes" if kind.store_tokens else "no"
                    yield kind.codec, sample.name, tokens, direction, each, compiler


def _count(command: list[str]) -> int:
    """Instructions of one run of the program."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit("valgrind is not installed (Debian: apt-get install valgrind)")
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
    found = _TOTAL.search(done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def _compiler() -> str:
    """What CMake compiled with, as its first file says."""
    (file,) = _BUILD.glob("CMakeFiles/*/CMakeCXXCompiler.cmake")
    text = file.read_text()
    name, version = (
        re.search(rf'set\(CMAKE_CXX_COMPILER_{key} "([^"]*)"', text)[1]  # type: ignore[index]
        for key in ("ID", "VERSION")
    )
    return f"{name} {version}"


if __name__ == "__main__":
    main()
