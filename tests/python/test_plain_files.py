"""A cache is regular files in its directory: nothing else is opened, followed or written."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from caches import Interruption, random_sequence, write, write_and_fail

import sparselogits as sl
from sparselogits.manifest import read_manifest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    write(tmp_path / "c", [random_sequence(0)])
    return tmp_path / "c"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket must be short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


NOT_A_FILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a FIFO": (fifo, "is a FIFO"),
    "a directory": (lambda path: path.mkdir(), "is a directory"),
    "a socket": (listening_socket, "is a socket"),
    "a link to a device": (lambda path: path.symlink_to("/dev/zero"), "link out"),
    "a link to a file outside": (lambda path: path.symlink_to("/etc/passwd"), "link out"),
    "a link up and back": (
        lambda path: path.symlink_to(f"../../{path.parent.parent.name}/c2/{path.name}"),
        "link out",
    ),
    "a link inside to a FIFO": (
        lambda path: (fifo(path.with_name("pipe")), path.symlink_to("pipe")),
        "is a FIFO",
    ),
    "a link to the directory": (lambda path: path.symlink_to("."), "link out"),
}


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.slc"])
@pytest.mark.parametrize("kind", NOT_A_FILE)
def test_what_is_no_file_is_not_opened(cache: Path, name: str, kind: str) -> None:
    """Opening a FIFO would wait for ever, /dev/zero would never end."""
    (cache.parent / "c2").mkdir()
    (cache / name).rename(cache.parent / "c2" / name)
    make, message = NOT_A_FILE[kind]
    make(cache / name)
    with pytest.raises(sl.CorruptionError, match=message) as caught:
        sl.open(cache)
    assert caught.value.path == str(cache / name)


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.slc"])
@pytest.mark.parametrize("target", ["nothing", "{name}", "pair"])
def test_links_to_nothing_are_errors_of_the_system(cache: Path, name: str, target: str) -> None:
    (cache / name).unlink()
    (cache / name).symlink_to(target.format(name=name))
    (cache / "pair").symlink_to(name)
    with pytest.raises(sl.CacheIOError, match=re.escape(name)):
        sl.open(cache)


@pytest.mark.parametrize("name", ["manifest.json", "shard-000000.slc"])
def test_links_that_stay_inside_are_followed(cache: Path, name: str) -> None:
    (cache / name).rename(cache / "real")
    (cache / name).symlink_to("real")
    assert len(sl.open(cache)) == 1


@pytest.mark.parametrize("suffix", ["", ".partial"])
@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "a link to a file outside"])
def test_a_recovery_takes_in_no_other_files(cache: Path, kind: str, suffix: str) -> None:
    make, message = NOT_A_FILE[kind]
    make(cache / f"shard-000001.slc{suffix}")
    before = (cache / "manifest.json").read_bytes()
    with pytest.raises(sl.CorruptionError, match=message) as caught:
        sl.recover(cache)
    assert caught.value.path == str(cache / f"shard-000001.slc{suffix}")
    assert (cache / "manifest.json").read_bytes() == before


def test_a_recovery_does_not_cut_an_unfinished_shard_of_another_cache(
    cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interruption):
        write_and_fail(tmp_path / "other", [random_sequence(5)])
    (others,) = (tmp_path / "other").glob("*.partial")
    with others.open("ab") as file:
        file.write(b"what follows the last commit")
    before = others.read_bytes()
    (cache / "shard-000001.slc.partial").symlink_to(others)
    with pytest.raises(sl.CorruptionError, match="link out"):
        sl.recover(cache)
    assert others.read_bytes() == before


def test_a_manifest_is_not_written_through_a_link(cache: Path, tmp_path: Path) -> None:
    """In a directory that others can write to, they could lay a link under the temporary name."""
    (tmp_path / "precious").write_text("data")
    (cache / f".manifest.json.{os.getpid()}.tmp").symlink_to(tmp_path / "precious")
    read_manifest(cache).write(cache)
    assert (tmp_path / "precious").read_text() == "data"
    assert len(sl.open(cache)) == 1
    assert not (cache / "manifest.json").is_symlink()
