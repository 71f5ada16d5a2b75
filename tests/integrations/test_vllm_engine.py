"""Opt-in: the plugin in the whole engine of the pinned release, on a CPU.

Needs SPARSELOGITS_VLLM_ENGINE=1, an importable vLLM with all that it imports, transformers and
triton. Model runner V2, scheduler, workers and messages are vLLM's; Triton runs in its interpreter
and the attention in `cpu_engine/torch_attention.py`. Half a minute to two minutes a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "cpu_engine"
POSITIONS = 1063
HEAD = {"hf_overrides": {"head_dtype": "float32"}}

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SPARSELOGITS_VLLM_ENGINE") != "1",
        reason="opt-in: SPARSELOGITS_VLLM_ENGINE=1 with an importable vLLM of the pinned release",
    ),
    pytest.mark.slow,
]


def run(folder: Path, dtype: str, processes: bool = False, **arguments: Any) -> dict[str, Any]:
    facts = folder / "site" / "plugin-1.0.dist-info"  # as an installation would declare it
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[vllm.general_plugins]\nsparselogits = sparselogits.integrations.vllm:register\n"
    )
    paths = [str(SCRIPTS), str(folder / "site"), *(path for path in sys.path if path)]
    settings = {
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "",
        "TRITON_INTERPRET": "1",
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_CI_ENV": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": str(int(processes)),
        "VLLM_USE_V2_MODEL_RUNNER": "1",
        "VLLM_PLUGINS": "sparselogits",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(SCRIPTS / "capture_script.py"), str(folder), dtype]
    command += [json.dumps(arguments), "many processes" if processes else "one process"]
    done = subprocess.run(
        command, env=os.environ | settings, capture_output=True, text=True, timeout=600
    )
    reports = [line for line in done.stdout.splitlines() if line.startswith("REPORT ")]
    assert reports, done.stdout[-2000:] + done.stderr[-4000:]
    report = json.loads(reports[0].removeprefix("REPORT "))
    print(dtype, arguments, report)
    return report


def assert_exact(report: dict[str, Any]) -> None:
    """In float32, two implementations of one model agree well enough that no draw moves."""
    assert report["positions"] == POSITIONS
    assert report["moved_between_captures"] == 0
    assert report["moved_from_hugging_face"] == 0
    assert report["worst_count"] == 0


def test_draws_are_those_of_the_other_capture(tmp_path: Path) -> None:
    report = run(tmp_path, "float32", **HEAD)
    assert_exact(report)
    assert len(report["refused"]) == 2
    for said in report["refused"]:
        assert "sequence 1: the logits of position 2 hold NaN" in said


def test_a_preempted_prefill_starts_again(tmp_path: Path) -> None:
    small = {"kv_cache_memory_bytes": 32 * 1024 * 10, "block_size": 32}
    steps = {"max_num_batched_tokens": 144, "long_prefill_token_threshold": 40}
    report = run(tmp_path, "float32", **HEAD, **small, **steps)
    assert report["preempted_at"], "the cache was too large for this test"
    assert_exact(report)


@pytest.mark.parametrize("layout", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_two_workers_draw_the_same(tmp_path: Path, layout: str) -> None:
    assert_exact(run(tmp_path, "float32", processes=True, **HEAD, **{layout: 2}))


def test_a_bfloat16_teacher_is_drawn_from_without_bias_for_its_own_logits(tmp_path: Path) -> None:
    report = run(tmp_path, "bfloat16", processes=True, **HEAD)
    assert report["worst_count"] == 0
    assert report["moved_between_captures"] == 0


def test_a_head_in_bfloat16_is_refused_by_client_and_worker(tmp_path: Path) -> None:
    client, worker = run(tmp_path, "bfloat16")["refused"]
    assert "head_dtype is bfloat16" in client
    assert "the engine's head returned bfloat16 logits" in worker
