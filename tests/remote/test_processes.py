"""Several processes with one small local directory, some of which are killed."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from remote_caches import SEQUENCES, Remote

import sparselogits as sl

HERE = Path(__file__).resolve().parent


@pytest.fixture
def on_disk(made: Path, tmp_path: Path) -> Remote:
    """At a file:// URL, which other processes reach too."""
    return Remote(made.as_uri(), made, tmp_path / "local")


def start(remote: Remote, bound: int, seed: int, reads: int) -> subprocess.Popen[str]:
    arguments = [remote.url, str(remote.root), str(bound), str(seed), str(reads)]
    command = [sys.executable, "-W", "error", str(HERE / "reader_script.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_whole(remote: Remote) -> None:
    """Whatever has the name of a shard is that shard."""
    digests = {row.file: row.sha256 for row in sl.open(remote.made).manifest.shards}
    for path in remote.root.glob("*/shards/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digests[path.name]


def test_processes_with_several_threads_share_a_directory_that_is_too_small(
    on_disk: Remote,
) -> None:
    # Threads hold two shards at a time: three of them wait for each other, and for other processes.
    bound = on_disk.room_for(4)
    readers = [start(on_disk, bound, seed, 150) for seed in range(2)]
    most = 0
    while any(reader.poll() is None for reader in readers):
        most = max(most, on_disk.local_bytes)
        time.sleep(0.001)
    for reader in readers:
        out, errors = reader.communicate()
        assert (errors, out.split(), reader.returncode) == ("", ["ready", "done"], 0)
    # Files move while they are counted: one may be seen twice.
    assert 0 < most <= bound + max(on_disk.sizes)
    assert on_disk.local_bytes <= bound
    assert_whole(on_disk)


def test_a_process_that_is_killed_leaves_no_file_that_is_used(on_disk: Remote) -> None:
    bound = on_disk.room_for(4)
    rng = random.Random(5)
    left = 0
    for attempt in range(6):
        reader = start(on_disk, bound, attempt, 100_000)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.005, 0.08))
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
        assert_whole(on_disk)
        left += len(list(on_disk.root.glob("*/fetching/*")))
    cache = on_disk.open(local_cache_bytes=bound)
    for index in range(len(SEQUENCES)):
        cache.read(index)
    assert on_disk.local_bytes <= bound
    assert not list(on_disk.root.glob("*/fetching/*"))
    print(left, "files were left unfinished")


def test_two_processes_fetch_a_shard_once(on_disk: Remote) -> None:
    """The second one waits for the first, which is stopped while it fetches."""
    script = (
        "import sys, time, sparselogits as sl\n"
        "from sparselogits.remote.remote_files import RemoteFiles\n"
        "read = RemoteFiles.read\n"
        "def slowly(*args):\n"
        "    print('fetching', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    return read(*args)\n"
        "RemoteFiles.read = slowly\n"
        "print(sl.open(sys.argv[1], local_cache=sys.argv[2])[3].sequence_id)\n"
    )
    command = [sys.executable, "-c", script, on_disk.url, str(on_disk.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first, second = (subprocess.Popen(command, **pipes) for _ in range(2))  # type: ignore[call-overload]
    os.set_blocking(first.stdout.fileno(), False)
    os.set_blocking(second.stdout.fileno(), False)
    said: list[subprocess.Popen[str]] = []
    while not said:
        said = [p for p in (first, second) if p.stdout.readline()]
        time.sleep(0.01)
    assert len(said) == 1
    time.sleep(1.0)
    waiting = second if said == [first] else first
    assert waiting.stdout.readline() == ""  # it has not begun to fetch
    os.set_blocking(said[0].stdout.fileno(), True)
    os.set_blocking(waiting.stdout.fileno(), True)
    assert said[0].communicate("\n", timeout=30)[0].split() == ["3"]
    assert waiting.communicate("\n", timeout=30)[0].split() == ["3"]
