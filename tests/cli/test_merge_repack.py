"""`merge` and `repack`: arguments, reports, exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import cli_cache
import numpy as np
import pytest

import sparselogits as sl


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A cache that may join `cache`, with another fact."""
    metadata = {"teacher": "none: made by hand", "host": "two"}
    with sl.CacheWriter(tmp_path / "other", cli_cache.config(), metadata=metadata) as writer:
        writer.append([1], [0, 1], [9], [4], sequence_id=50)
    return tmp_path / "other"


def test_merge(command, cache: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = command("merge", cache, other, out, "--metadata", "host=both", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json == {
        "path": str(out),
        "sources": 2,
        "shards": 2,
        "sequences": 4,
        "positions": 5,
        "entries": 7,
        "bytes": sl.open(out).nbytes,
        "linked": 2,
        "copied": 0,
        "complete": True,
        "models": 0,
    }
    assert sl.open(out).sequence_ids.tolist() == [100, 7, 2**64 - 1, 50]  # a shard's stay together
    assert sl.open(out).metadata == {"teacher": "none: made by hand", "host": "both"}


def test_merge_for_people(command, cache: Path, tmp_path: Path) -> None:
    outcome = command("merge", cache, tmp_path / "out")
    assert outcome.code == 0
    assert "linked     1\n" in outcome.out


def test_merge_adds_rounds(command, tmp_path: Path) -> None:
    for name in ("1", "2"):
        with sl.CacheWriter(tmp_path / name, cli_cache.config(), {"seed": name}) as writer:
            writer.append([1], [0, 1], [int(name)], [4], sequence_id=50)
    sources, out = [tmp_path / "1", tmp_path / "2"], tmp_path / "out"
    outcome = command("merge", *sources, out, "--rounds", "add", "--json")
    assert (outcome.code, outcome.json["positions"], outcome.json["entries"]) == (0, 1, 2)
    assert sl.open(out).config.rounds == 8
    outcome = command("merge", sources[0], out, tmp_path / "more", "--rounds", "add")
    assert outcome.code == 2
    assert "multinomial draws of one seed" in outcome.err
    assert command("merge", *sources, tmp_path / "more", "--rounds", "join").code == 2


def test_merge_refusals_have_their_exit_codes(
    command, cache: Path, other: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    outcome = command("merge", cache, other, out, "--json")
    assert (outcome.code, outcome.json["error"]["type"]) == (1, "MismatchError")
    assert "metadata['host'] of" in outcome.err
    assert command("merge", cache, cache, out).code == 2
    assert command("merge", out).code == 2
    assert command("merge", cache, out, "--metadata", "nothing").code == 2
    assert command("merge", tmp_path / "nowhere", out).code == 3
    assert not out.exists()


def test_merge_takes_incomplete_caches_on_request(command, tmp_path: Path) -> None:
    path = tmp_path / "dead"
    with pytest.raises(RuntimeError, match="power cut"):
        cli_cache.write_and_die(path)
    assert "sl.recover" in command("merge", path, tmp_path / "out").err
    command("recover", path)
    outcome = command("merge", path, tmp_path / "out")
    assert outcome.code == 2
    assert "--allow-incomplete" in outcome.err
    outcome = command("merge", path, tmp_path / "out", "--allow-incomplete", "--json")
    assert (outcome.code, outcome.json["complete"]) == (0, False)


def test_repack(command, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = command("repack", cache, out, "--order", "sequence_id", "--codec", "packed", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["sequences"] == 3
    assert outcome.json["bytes"] == sl.open(out).nbytes
    assert outcome.json["source_bytes"] == sl.open(cache).nbytes
    assert sl.open(out).sequence_ids.tolist() == sorted(cli_cache.SEQUENCE_IDS)
    assert "sequences     3\n" in command("repack", cache, tmp_path / "again").out


def test_repack_drops_and_adds_tokens(command, cache: Path, tmp_path: Path) -> None:
    with sl.CacheWriter(tmp_path / "a", cli_cache.config()) as writer:
        for sequence_id in (4, 2):
            writer.append([sequence_id, 1], [0, 0, 0], [], [], sequence_id=sequence_id)
    assert command("repack", tmp_path / "a", tmp_path / "b", "--drop-tokens").code == 0
    assert sl.open(tmp_path / "b")[0].input_ids is None
    np.save(tmp_path / "tokens.npy", np.array([[4, 1], [2, 1]]))
    arguments = ["repack", tmp_path / "b", tmp_path / "c", "--add-tokens", tmp_path / "tokens.npy"]
    assert command(*arguments).code == 0
    assert sl.open(tmp_path / "c")[1].input_ids.tolist() == [2, 1]
    np.save(tmp_path / "tokens.npy", np.array([[4, 1], [2, 7]]))
    outcome = command("repack", tmp_path / "b", tmp_path / "d", *arguments[3:], "--json")
    assert (outcome.code, outcome.json["error"]["type"]) == (1, "FingerprintMismatchError")
    (tmp_path / "tokens.npy").write_text("no array")
    assert command("repack", tmp_path / "b", tmp_path / "d", *arguments[3:]).code == 2
    (tmp_path / "tokens.npy").unlink()
    assert command("repack", tmp_path / "b", tmp_path / "d", *arguments[3:]).code == 3
    assert command("repack", cache, tmp_path / "d", "--drop-tokens", *arguments[3:]).code == 2


def test_repack_selects_by_files_of_ids(command, cache: Path, tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text(f"{2**64 - 1}\n\n 100 \n")
    assert command("repack", cache, tmp_path / "only", "--only-ids", ids).code == 0
    assert sl.open(tmp_path / "only").sequence_ids.tolist() == [2**64 - 1, 100]
    outcome = command("repack", cache, tmp_path / "rest", "--exclude-ids", ids, "--json")
    assert outcome.json["left_out"] == 2
    assert sl.open(tmp_path / "rest").sequence_ids.tolist() == [7]


@pytest.mark.parametrize("option", ["--only-ids", "--exclude-ids"])
@pytest.mark.parametrize(
    "text, code, message",
    [
        ("8\n", 1, "no sequence_id 8"),
        ("7\n-8\n", 2, "ids, line 2: must be an id from 0 to 2^64 - 1, got '-8'"),
        ("7,8\n", 2, "ids, line 1: must be an id"),
        (f"{2**64}\n", 2, f"must be from 0 to 2^64 - 1, got {2**64}"),
        (f"{'9' * 5000}\n", 2, "ids, line 1: must be an id"),
        ("\xe4\n", 2, "must be one id a line"),
    ],
)
def test_ids_that_cannot_be(
    command, cache: Path, tmp_path: Path, option: str, text: str, code: int, message: str
) -> None:
    (tmp_path / "ids").write_text(text, encoding="utf-8")
    outcome = command("repack", cache, tmp_path / "out", option, tmp_path / "ids")
    assert outcome.code == code
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_repack_refusals_have_their_exit_codes(command, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("repack", cache).code == 2
    assert command("repack", cache, out, "--order", "length").code == 2
    assert command("repack", cache, out, "--shard-bytes", "0").code == 2
    assert command("repack", cache, out, "--codec", "zip").code == 2
    outcome = command("repack", cache, out, "--model", tmp_path / "m.slm")
    assert outcome.code == 2
    assert "model must be None for codec 'packed'" in outcome.err
    assert command("repack", cache, cache).code == 2
    assert command("repack", cache, out, "--only-ids", tmp_path / "nowhere").code == 3
    assert command("repack", tmp_path / "nowhere", out).code == 3
    assert not out.exists()


def test_repack_restarts_on_request(
    command, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sparselogits.cli.repack.Progress.__call__", interrupt)
        assert command("repack", cache, tmp_path / "out").code == 130
    outcome = command("repack", cache, tmp_path / "out", "--order", "sequence_id")
    assert outcome.code == 2
    assert "--restart" in outcome.err
    outcome = command("repack", cache, tmp_path / "out", "--order", "sequence_id", "--restart")
    assert outcome.code == 0
    outcome = command("repack", cache, tmp_path / "noted", "--metadata", "a=b", "--json")
    assert json.loads(outcome.out)["resumed"] == 0
    assert sl.open(tmp_path / "noted").metadata["a"] == "b"


@pytest.mark.parametrize("verb", ["merge", "repack"])
def test_progress_on_a_terminal(
    command, cache: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert command(verb, cache, tmp_path / "out").code == 0
    assert terminal.getvalue().endswith(f"{verb}: 100.0 %\n")
