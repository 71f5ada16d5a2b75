"""A file system that fails as it is told to, in place of the one that a URL means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sparselogits.remote.remote_files import RemoteFiles

Fault = Callable[[bytes], bytes]


class Flaky:
    """Wraps a file system: ranges of some files meet with faults before they come right.

    Attributes:
        faults: By name of the file: what happens to the requests to come, one after the other.
        requests: Names of the files that were asked for, in order.
    """

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[str] = []

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        name = path.rsplit("/", 1)[1]
        self.requests.append(name)
        data = self._filesystem.cat_file(path, start=start, end=end)
        waiting = self.faults.get(name)
        return waiting.pop(0)(data) if waiting else data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._filesystem, name)


def raises(error: Exception) -> Fault:
    """A request that ends like this."""

    def fault(_: bytes) -> bytes:
        raise error

    return fault


def wrong(data: bytes) -> bytes:
    """Other bytes, as many."""
    return bytes(len(data) - 1) + b"\1"


def short(data: bytes) -> bytes:
    """A body that ends early."""
    return data[:-1]


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Flaky:
    """The file system of every cache that the test opens."""
    import fsspec

    shared = Flaky(fsspec.filesystem("memory"))
    connect = RemoteFiles.__init__

    def connect_to_flaky(self: RemoteFiles, location: Any) -> None:
        connect(self, location)
        self._filesystem = shared

    monkeypatch.setattr(RemoteFiles, "__init__", connect_to_flaky)
    return shared
