"""Which URLs are taken, by whom, and what is said where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caches import CONFIG
from remote_caches import Remote

import sparselogits as sl
from sparselogits.cli import main


def python(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_neither_the_import_nor_a_local_cache_needs_fsspec(made: Path) -> None:
    out = python(
        "import sys\n"
        "import sparselogits as sl\n"
        "sl.open(sys.argv[1])[3]\n"
        "print(*sorted({'fsspec', 'torch', 's3fs', 'huggingface_hub'} & set(sys.modules)))",
        str(made),
    )
    assert out.strip() == ""


@pytest.mark.parametrize(
    "url, missing, advice",
    [
        ("memory://c", "fsspec", "pip install 'sparselogits[remote]'"),
        ("s3://b/c", "s3fs", "pip install s3fs"),
        ("hf://datasets/a/b", "huggingface_hub", "pip install huggingface_hub"),
        ("gs://b/c", "gcsfs", "pip install gcsfs"),
    ],
)
def test_a_package_that_is_missing_is_named(url: str, missing: str, advice: str) -> None:
    out = python(
        "import sys\n"
        "sys.modules[sys.argv[2]] = None\n"
        "import sparselogits as sl\n"
        "try:\n    sl.open(sys.argv[1])\n"
        "except sl.InvalidArgumentError as error:\n    print(error)",
        url, missing,
    )  # fmt: skip
    assert url in out
    assert advice in out


@pytest.mark.parametrize(
    "url, options, said",
    [
        ("nothing://c", {}, "nothing"),
        ("memory://", {}, "must name a folder"),
        ("memory:///", {}, "must name a folder"),
        ("memory://c\0", {}, "must name a folder"),
        ("memory://c", {"storage_options": "secret"}, "storage_options must map str"),
        ("memory://c", {"storage_options": {1: "secret"}}, "storage_options must map str"),
        ("memory://c", {"local_cache": "s3://b/l"}, "local_cache must be a local directory"),
        ("memory://c", {"local_cache": 5}, "local_cache must be a local directory"),
        ("memory://c", {"local_cache_bytes": 0}, "local_cache_bytes"),
        ("memory://c", {"num_fetchers": 0}, "num_fetchers"),
        ("memory://c", {"num_fetchers": 2.5}, "num_fetchers"),
        ("memory://c", {"digest": "x"}, "digest must be 64"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    url: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises((sl.InvalidArgumentError, sl.CacheIOError), match=said) as caught:
        sl.open(url, **{"local_cache": tmp_path, **options})
    assert "secret" not in str(caught.value)


def test_a_trailing_slash_changes_nothing(remote: Remote) -> None:
    assert sl.open(remote.url + "/", local_cache=remote.root).path == remote.url


@pytest.mark.parametrize(
    "write",
    [
        lambda url, path: sl.CacheWriter(url, CONFIG),
        lambda url, path: sl.recover(url),
        lambda url, path: sl.merge([url], path),
        lambda url, path: sl.merge([path], url),
        lambda url, path: sl.repack(url, path),
        lambda url, path: sl.repack(path, url),
    ],
)
def test_whatever_writes_takes_local_paths_only(
    write: Callable[[str, Path], Any], made: Path, tmp_path: Path
) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=r"local directory, got the URL 's3://b/c'"):
        write("s3://b/c", made)


@pytest.mark.parametrize("verb", ["inspect", "stats", "verify", "dump"])
def test_the_verbs_that_read_take_urls(
    verb: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SPARSELOGITS_CACHE", str(tmp_path / "l"))
    reports = []
    for place in (str(made), made.as_uri()):
        assert main([verb, place, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report.pop("path") == place
        reports.append(report)
    assert reports[0] == reports[1]
    assert list((tmp_path / "l").glob("*/shards/*"))


def test_a_verb_says_what_it_cannot_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSELOGITS_CACHE", str(tmp_path / "l"))
    assert main(["inspect", "memory://nowhere"]) == 3
    assert "memory://nowhere" in capsys.readouterr().err
    assert main(["repack", "s3://b/c", str(tmp_path / "o"), "--codec", "compact"]) == 2


def test_alignment_is_checked_against_a_remote_cache(remote: Remote) -> None:
    from remote_caches import SEQUENCES

    windows = [sequence.input_ids for sequence in SEQUENCES]
    sl.check_alignment(remote.open(), windows)
    windows[4] = windows[4][::-1]
    with pytest.raises(sl.FingerprintMismatchError, match="sequence_id 4"):
        sl.check_alignment(remote.open(), windows)
