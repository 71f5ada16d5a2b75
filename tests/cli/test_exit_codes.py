"""Each kind of failure has its exit code, one clear line, and an object with `--json`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparselogits.cli.failures import exit_code
from sparselogits.errors import (
    CacheIOError,
    CorruptionError,
    FingerprintMismatchError,
    InvalidArgumentError,
    SequenceNotFoundError,
)


@pytest.mark.parametrize(
    "error, code",
    [
        (CorruptionError("x"), 1),
        (FingerprintMismatchError("x"), 1),
        (SequenceNotFoundError("x"), 1),
        (InvalidArgumentError("x"), 2),
        (CacheIOError("x"), 3),
        (PermissionError("x"), 3),
        (ZeroDivisionError("x"), 70),
    ],
)
def test_exit_code_of_each_kind(error: Exception, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("verb", ["inspect", "stats", "dump", "verify"])
def test_missing_cache_is_an_io_error(command, tmp_path: Path, verb: str) -> None:
    outcome = command(verb, tmp_path / "nowhere", "--json")
    assert outcome.code == 3
    assert outcome.json["exit_code"] == 3
    assert outcome.json["error"]["type"] == "CacheIOError"
    assert "nowhere" in outcome.json["error"]["message"]


def test_flipped_bit_is_bad_data_with_its_place(command, cache: Path) -> None:
    (shard,) = cache.glob("*.slc")
    damaged = bytearray(shard.read_bytes())
    damaged[130] ^= 1  # in the frame header after the shard's header
    shard.write_bytes(damaged)
    outcome = command("verify", cache, "--json")
    assert outcome.code == 1
    error = outcome.json["error"]
    assert set(error) == {"type", "message", "path", "offset", "field"}
    assert error["type"] == "CorruptionError"
    assert Path(error["path"]).name == shard.name
    assert isinstance(error["offset"], int)


def test_error_is_one_line_without_traceback(command, cache: Path) -> None:
    (cache / "manifest.json").write_text("{")
    outcome = command("inspect", cache)
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err.startswith("sparselogits: ")
    assert outcome.err.count("\n") == 1


def test_debug_shows_the_traceback(command, cache: Path) -> None:
    (cache / "manifest.json").write_text("{")
    assert "Traceback" in command("inspect", cache, "--debug").err


@pytest.mark.parametrize(
    "arguments", [[], ["explode"], ["inspect"], ["dump", "x", "--limit", "few"], ["verify", "--no"]]
)
def test_usage_errors(command, arguments: list[str]) -> None:
    outcome = command(*arguments, "--json")
    assert outcome.code == 2
    assert outcome.json["error"]["type"] == "InvalidArgumentError"
    assert "--help" in outcome.err


def test_sequence_id_that_is_not_there(command, cache: Path) -> None:
    outcome = command("dump", cache, "--id", 8)
    assert outcome.code == 1
    assert "8" in outcome.err


def test_sequence_index_that_is_not_there(command, cache: Path) -> None:
    assert command("dump", cache, "--sequence", 3).code == 1
    assert command("dump", cache, "--sequence", -1).code == 1


@pytest.mark.parametrize(
    "options",
    [["--start", 4], ["--start", -1], ["--start", 2, "--stop", 1], ["--stop", 4], ["--limit", -1]],
)
def test_range_outside_the_sequence(command, cache: Path, options: list[object]) -> None:
    assert command("dump", cache, *options).code == 2


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_are_no_errors(command, flag: str) -> None:
    outcome = command(flag)
    assert outcome.code == 0
    assert "sparselogits" in outcome.out


def test_unexpected_errors_are_faults(command, cache: Path, monkeypatch) -> None:
    def broken(_path: str) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("sparselogits.inspect.inspect_cache", broken)
    outcome = command("inspect", cache)
    assert outcome.code == 70
    assert "surprise" in outcome.err
    assert "Traceback" not in outcome.err
