"""Expected output lies beside the tests; what differs from run to run is replaced by a name."""

from __future__ import annotations

import os
import re
from pathlib import Path

_DIRECTORY = Path(__file__).parent / "expected"
_HEX = re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{32})\b")


def assert_expected(name: str, text: str, cache: Path) -> None:
    """Compares with `expected/NAME`; writes it instead where UPDATE_EXPECTED is set."""
    shown = _HEX.sub("HEX", text.replace(str(cache), "CACHE"))
    file = _DIRECTORY / name
    if os.environ.get("UPDATE_EXPECTED"):
        file.write_text(shown, encoding="utf-8")
    assert shown == file.read_text(encoding="utf-8")
