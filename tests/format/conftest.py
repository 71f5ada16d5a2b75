"""Puts the reference decoder and encoder on the import path of these tests."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "formats"), str(ROOT / "tests" / "format")]
