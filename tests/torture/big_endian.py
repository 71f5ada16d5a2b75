"""Byte order: another machine, of the other order, reads, writes and draws the same bits.

The full run compiles the core and its tests for s390x and runs them under qemu's user mode. What
every machine must agree on is kept in tests/cpp/portable_bits.txt; the small run compares the
installed package with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from report import Row, Tally

from sparselogits import _core

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "formats" / "golden" / "v1" / "valid"
KEPT = ROOT / "tests" / "cpp" / "portable_bits.txt"
TOOLS = ("s390x-linux-gnu-g++", "qemu-s390x", "cmake", "ctest")
FULL_SCALE = 1.0
PROGRAMS = {  # by the beginning of their names
    "test_": "C++ tests",
    "portable_bits": "golden shards, written again, and draws",
    "fuzz_": "kept inputs of the fuzzers",
}


def run(scale: float) -> list[Row]:
    """One row for this machine; at full scale one for each kind of test program on s390x."""
    rows = [kept_bits_in_python()]
    if scale < FULL_SCALE:
        return rows
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return [*rows, Row("s390x", 0, note=f"not run: there is no {', '.join(missing)}")]
    return [*rows, *s390x_rows(ROOT / "build" / "s390x")]


def kept_bits_in_python() -> Row:
    """Decodes every golden shard with the package, and hashes the arrays in little-endian order."""
    tally = Tally(f"golden files on this machine ({sys.byteorder}-endian)", "against the kept bits")
    for line in KEPT.read_text(encoding="ascii").splitlines():
        match = re.fullmatch(r"shard (\S+) decoded (\w+) written \w+", line)
        if match is None:
            continue
        if hash_of_content(GOLDEN / match[1]) == match[2]:
            tally.harmless += 1
        else:
            tally.lose(f"{match[1]} has other bits")
    return tally.row()


def hash_of_content(path: Path) -> str:
    """As tests/cpp/portable_bits.cc computes it."""
    models = [_core.CodecModel.parse(file.read_bytes()) for file in path.parent.glob("*.slm")]
    found = _core.read_shard_info(str(path), models)
    totals = (found[name] for name in ("bytes", "sequences", "positions", "entries"))
    reader = _core.CacheReader([(str(path), found["uuid"], *totals)], found["config"], models, True)
    positions = np.arange(reader.num_positions, dtype=np.int64)
    records = reader.read_positions(positions)
    ids, _, fingerprints = reader.sequence_table()
    arrays = [array for array in records if array is not None]
    arrays.append(np.stack([ids, fingerprints], axis=1))
    little = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
    return f"{_core.xxh64(little):016x}"


def s390x_rows(build: Path) -> list[Row]:
    """Compiles, runs ctest, and turns its report into rows."""
    report = build / "report.xml"
    toolchain = ROOT / "cmake" / "s390x.cmake"
    for command in (
        ["cmake", "-S", ROOT, "-B", build, "--toolchain", toolchain, "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", build, "--parallel", "2"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report.unlink(missing_ok=True)
    subprocess.run(
        ["ctest", "--test-dir", build, "--output-junit", report],
        check=False,  # a failed test is a row
        stdout=subprocess.DEVNULL,
    )
    tallies = {prefix: Tally(f"s390x (big-endian): {what}") for prefix, what in PROGRAMS.items()}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.attrib["name"]
        prefix = next(prefix for prefix in PROGRAMS if name.startswith(prefix))
        take(case, tallies[prefix])
    return [tally.row() for tally in tallies.values()]


def take(case: ElementTree.Element, tally: Tally) -> None:
    """Counts a test program's tests, or the lines or inputs that it went through."""
    output = case.findtext("system-out") or ""
    counted = re.search(r"(\d+) (?:tests|lines|inputs)", output)
    if case.attrib["status"] == "run":
        tally.harmless += int(counted[1]) if counted else 1
    else:
        tally.lose(f"{case.attrib['name']}: {output.strip()[-200:]}")
