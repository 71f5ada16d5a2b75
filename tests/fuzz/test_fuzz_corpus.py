"""The manifest's kept inputs, replayed without a fuzzer; ctest replays those of the core."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from fuzz_targets import CXX_TARGETS  # noqa: E402
from manifest_target import check  # noqa: E402

INPUTS = sorted(
    path
    for kind in ("corpus", "regressions")
    for path in (HERE / kind / "fuzz_manifest").glob("*")
    if path.is_file()
)


def test_there_are_inputs() -> None:
    assert len(INPUTS) > 20


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_every_kept_manifest_is_refused_or_understood(path: Path) -> None:
    check(path.read_bytes())


@pytest.mark.parametrize("target", CXX_TARGETS)
def test_the_core_has_inputs_for_ctest(target: str) -> None:
    assert len(list((HERE / "corpus" / target).iterdir())) > 20
