"""Puts the helpers of these tests on their import path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def real_samples() -> Path:
    """The directory of real teacher samples; a test that needs it is skipped without it."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    return DATA
