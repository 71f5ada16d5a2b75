"""Ray Data as the driver: the same cache as one process makes, also when an actor dies."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

import numpy as np
import ray
import ray.data
from ray_teachers import KillsItsActorOnce
from unfinished import capture, interrupted
from worker_processes import OPTIONS, UNIT_WINDOWS, WINDOWS, contents, llama, plain

import sparselogits as sl
from sparselogits.cli import main
from sparselogits.distributed import capture_with_ray

pytestmark = [
    pytest.mark.slow,
    # Ray's own: it sets its deprecated settings to their defaults.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    sockets = tempfile.mkdtemp(prefix="ray-")  # a socket's path must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 << 20,
            logging_level="error",
            log_to_driver=False,
            _temp_dir=sockets,
        )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    shutil.rmtree(sockets, ignore_errors=True)


def run(path: Path, windows: Any = WINDOWS, teacher: Any = plain, **options: Any) -> sl.Cache:
    arguments = {"unit_windows": UNIT_WINDOWS, **OPTIONS, **options}
    return capture_with_ray(teacher, windows, path, **arguments)


def test_the_content_is_that_of_one_process(tmp_path: Path) -> None:
    mask = np.random.default_rng(5).random(WINDOWS.shape) < 0.7
    options: dict[str, Any] = {
        "targets_mask": mask,
        "sequence_ids": np.arange(100, 123)[::-1],
        "store_tokens": False,
        "proposal_temperature": 1.5,
        "weight_dtype": "float16",
    }
    made = run(tmp_path / "ray", **options)
    alone = capture(tmp_path / "alone", model=plain(), **options)
    assert contents(made) == contents(alone)
    assert (made.config, made.metadata) == (alone.config, alone.metadata)
    assert made.fingerprints.tolist() == alone.fingerprints.tolist()
    assert not list((tmp_path / "ray").glob(".*"))


def test_a_killed_actor_is_replaced_and_its_unit_made_again(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    np.save(tmp_path / "windows.npy", WINDOWS)
    made = run(
        tmp_path / "ray",
        windows=tmp_path / "windows.npy",
        teacher=KillsItsActorOnce(marker, window=10),
        codec="packed",
        actors=2,
    )
    assert marker.exists()
    assert contents(made) == contents(capture(tmp_path / "alone", model=plain(), codec="packed"))
    assert [row.sequences for row in made.manifest.shards] == [4, 4, 4, 4, 4, 3]


def test_it_goes_on_with_what_workers_have_left_and_refuses_other_facts(tmp_path: Path) -> None:
    path = tmp_path / "ray"
    units = interrupted(path, 5, plain(), codec="packed")  # in the middle of the third unit
    kept = [sl.open(units.unit_path(unit)).manifest.shards[0].uuid for unit in (0, 1)]
    made = run(path, codec="packed")
    assert [row.uuid for row in made.manifest.shards[:2]] == kept
    assert contents(made) == contents(capture(tmp_path / "alone", model=plain(), codec="packed"))
    with pytest.raises(sl.MismatchError, match=r"metadata\['seed'\]"):  # finished: no unit left
        run(path, codec="packed", seed=4)


def test_a_bad_window_is_named_and_the_other_units_are_kept(tmp_path: Path) -> None:
    windows = WINDOWS.copy()
    windows[9, 4] = 200
    np.save(tmp_path / "windows.npy", windows)
    path = tmp_path / "ray"
    with pytest.raises(sl.InvalidArgumentError, match="window 9 has token id 200"):
        run(path, tmp_path / "windows.npy")
    assert len(list(path.glob(".units/unit-*[0-9]/manifest.json"))) == 5


def test_the_command_line_captures_with_ray(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llama().save_pretrained(tmp_path / "teacher")
    np.save(tmp_path / "windows.npy", WINDOWS)
    options = ["--no-tokenizer", "--batch-size", "2", "--unit-windows", "8", "--ray", "1"]
    files = [str(tmp_path / name) for name in ("teacher", "windows.npy", "cache")]
    assert main(["capture", *files, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequences"] == len(WINDOWS)
    expected = sl.capture(llama(), WINDOWS, tmp_path / "alone", batch_size=2, progress=False)
    assert contents(sl.open(tmp_path / "cache")) == contents(expected)
