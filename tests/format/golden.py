"""Where the golden files lie and what they expect."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FORMATS = Path(__file__).resolve().parents[2] / "formats"
GOLDEN = FORMATS / "golden" / "v1"
SHARDS = sorted((GOLDEN / "valid").glob("*.slc"))
VALID = [*SHARDS, GOLDEN / "valid" / "cache"]
INVALID = sorted((GOLDEN / "invalid").glob("*.slc"))


def expected(path: Path) -> Any:
    """The JSON beside a golden file or cache."""
    return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def same(content: Any, want: Any) -> bool:
    """Whether decoded content is what was expected; large records are compared by digest."""
    if isinstance(want, dict) and isinstance(want.get("records"), dict):
        digest = hashlib.sha256(json.dumps(content["records"]).encode()).hexdigest()
        content = content | {"records": {"sha256 of the JSON": digest}}
    return bool(content == want)
