"""`inspect`, `stats`, `verify` and `recover` on a small cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_cache import write_and_die
from expected_output import assert_expected


@pytest.mark.parametrize("verb", ["inspect", "stats"])
def test_report_for_people(command, cache: Path, verb: str) -> None:
    outcome = command(verb, cache)
    assert (outcome.code, outcome.err) == (0, "")
    assert_expected(f"{verb}.txt", outcome.out, cache)


@pytest.mark.parametrize("verb", ["inspect", "stats"])
def test_json_is_the_report_of_the_api(command, cache: Path, verb: str) -> None:
    from sparselogits import inspect
    from sparselogits.cli.output import jsonable

    report = getattr(inspect, f"{verb}_cache")(cache)
    outcome = command(verb, cache, "--json")
    assert (outcome.code, outcome.json) == (0, jsonable(report))


def test_verify(command, cache: Path) -> None:
    report = command("verify", cache, "--json").json
    assert report["ok"] is True
    assert (report["sequences"], report["positions"]) == (3, 4)
    assert report["bytes"] == sum(file.stat().st_size for file in cache.iterdir())
    assert "yes" in command("verify", cache).out


def test_recover_after_a_writer_died(command, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    with pytest.raises(RuntimeError, match="power cut"):
        write_and_die(path)
    assert command("recover", path, "--json").code == 0
    report = command("verify", path, "--json").json
    assert (report["sequences"], report["positions"]) == (3, 4)
