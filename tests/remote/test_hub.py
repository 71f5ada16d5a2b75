"""hf:// URLs, against a stub of the hub's HTTP API: the hub itself is not asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stub_hub import REPOSITORY, StubHub

HERE = Path(__file__).resolve().parent

SCRIPT = """
import sys
sys.path[:0] = sys.argv[1:3]
from caches import assert_holds
from remote_caches import SEQUENCES
import sparselogits as sl
cache = sl.open(sys.argv[3], local_cache=sys.argv[4])
assert_holds(cache, SEQUENCES)
assert cache.path == sys.argv[3]
try:
    sl.open("hf://datasets/someone/nothing/c", local_cache=sys.argv[4])
except sl.CacheIOError as error:
    print(error.errno, error)
"""


def test_a_cache_on_the_hub_is_read_like_any_other(made: Path, tmp_path: Path) -> None:
    with StubHub(made) as hub:
        # A process of its own: the endpoint is read once, when the hub's library is imported.
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(HERE), str(HERE.parent / "python"),
             f"hf://{REPOSITORY}/c", str(tmp_path / "l")],
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_OFFLINE": "0",
            },
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("2 ")
    assert "no manifest.json" in result.stdout
    assert "hf://datasets/someone/nothing/c" in result.stdout
    shards = [request for request in hub.requests if request.endswith(".slc")]
    # The whole of each once; header, index and SEQS frame for the table of sequences.
    assert len(shards) == 12 * (1 + 3)
