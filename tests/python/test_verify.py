"""`verify`: the first fault or all, in order, with the sequences that each one concerns."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import threading
from pathlib import Path

import pytest
from caches import CONFIG, random_sequence, write
from damage import frames, shard

import sparselogits as sl
from sparselogits.manifest import read_manifest

NUM_SEQUENCES = 60


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 20 sequences; each shard has several blocks and commits."""
    path = tmp_path_factory.mktemp("verify") / "cache"
    with sl.CacheWriter(path, CONFIG, {"teacher": "test"}) as writer:
        for start in range(0, NUM_SEQUENCES, 20):
            for i in range(start, start + 20):
                random_sequence(1000 + i, 40 + i).append_to(writer)
                if i % 5 == 4:
                    writer.flush()
            writer._shards._finish_shard(writer._shards._shard)  # a roll-over, of exactly these
    assert len(sl.open(path).manifest.shards) == 3
    return path


@pytest.fixture
def cache(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "cache"))


def overwrite(path: Path, offset: int, new: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(new)


def flip(path: Path, offset: int) -> None:
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 0x10]))


def unreadable(path: Path, pristine: Path) -> set[int]:
    """Indices of the sequences that cannot be read, or read differently, shard by shard."""
    good = sl.open(pristine)
    bad = set()
    for number, row in enumerate(good.manifest.shards):
        alone = path.with_name(f"alone-{number}")
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        shutil.copy(path / row.file, alone)
        dataclasses.replace(good.manifest, shards=(row,)).write(alone)
        for i in range(20 * number, 20 * (number + 1)):
            start, stop = good.sequence_starts[i : i + 2] - good.sequence_starts[20 * number]
            try:
                read = sl.open(alone).read_positions(range(start, stop))
                same = read.token_ids.tolist() == good[i].token_ids.tolist()
            except sl.SparseLogitsError:
                same = False
            if not same:
                bad.add(i)
    return bad


def concerned(report: sl.VerifyReport) -> set[int]:
    return {i for fault in report.faults for i in range(fault.first_sequence, fault.last_sequence)}


def test_a_sound_cache_has_no_fault(cache: Path) -> None:
    report = sl.verify(cache)
    assert report.ok
    assert report.faults == ()
    assert (report.shards, report.sequences, report.complete) == (3, NUM_SEQUENCES, True)
    assert report == sl.verify(cache, keep_going=True, num_threads=1) == sl.open(cache).verify()


def test_the_first_fault_is_raised_with_its_sequences(cache: Path, pristine: Path) -> None:
    _, at, _ = [frame for frame in frames(shard(cache, 1)) if frame[0] == b"BLCK"][1]
    flip(shard(cache, 1), at + 40)
    flip(shard(cache, 2), 500)
    bad = sorted(unreadable(cache, pristine) & set(range(20, 40)))
    with pytest.raises(sl.CorruptionError) as caught:
        sl.verify(cache)
    error = caught.value
    assert error.path == str(shard(cache, 1))
    assert error.field == "payload_crc"
    assert error.offset == at + 24
    assert f"it concerns sequences {bad[0]} to {bad[-1]} (sequence_id {1000 + bad[0]}, " in str(
        error
    )


def test_keep_going_lists_every_fault_in_order(cache: Path, pristine: Path) -> None:
    blocks = [at for kind, at, _ in frames(shard(cache, 0)) if kind == b"BLCK"]
    tables = [at for kind, at, _ in frames(shard(cache, 1)) if kind == b"SEQS"]
    commits = [at for kind, at, _ in frames(shard(cache, 1)) if kind == b"CMIT"]
    flip(shard(cache, 0), blocks[0] + 50)
    flip(shard(cache, 0), blocks[2] + 17)  # in the frame header
    flip(shard(cache, 1), tables[1] + 40)
    flip(shard(cache, 1), commits[3] + 33)
    flip(shard(cache, 2), shard(cache, 2).stat().st_size - 20)  # in the footer
    reports = [sl.verify(cache, keep_going=True, num_threads=n) for n in (1, 4)]
    assert reports[0] == reports[1]
    seen = [(Path(f.path or "").name[-5], f.field, f.offset) for f in reports[0].faults]
    size = shard(cache, 2).stat().st_size
    assert seen == [
        ("0", "payload_crc", blocks[0] + 24),
        ("0", "frame_crc", blocks[2] + 28),
        ("1", "payload_crc", tables[1] + 24),
        ("1", "payload_crc", commits[3] + 24),
        ("2", "footer_crc", size - 4),
    ]
    ranges = [(f.first_sequence, f.last_sequence) for f in reports[0].faults]
    assert ranges == [(0, 5), (10, 15), (25, 30), (20, 20), (40, 60)]
    ids = [f.sequence_ids for f in reports[0].faults]
    assert ids == [tuple(range(1000, 1005)), tuple(range(1010, 1015)), (), (), ()]


@pytest.mark.parametrize("seed", range(12))
def test_what_cannot_be_read_is_concerned_and_nothing_else(
    cache: Path, pristine: Path, seed: int
) -> None:
    """Damage to blocks, also to several at once."""
    rng = random.Random(seed)
    for number in range(3):
        blocks = [frame for frame in frames(shard(pristine, number)) if frame[0] == b"BLCK"]
        for _, at, length in rng.sample(blocks, rng.randrange(3)):
            start = rng.randrange(length)
            size = min(rng.choice([1, 8, 700, 4000]), length - start)
            overwrite(shard(cache, number), at + start, rng.randbytes(size))
    report = sl.verify(cache, keep_going=True)
    assert concerned(report) == unreadable(cache, pristine)


@pytest.mark.parametrize("seed", range(12))
def test_no_loss_goes_unnoticed(cache: Path, pristine: Path, seed: int) -> None:
    """Damage to frames of any kind, from any byte on."""
    rng = random.Random(seed)
    for number in range(3):
        size = shard(pristine, number).stat().st_size
        start = rng.randrange(size)
        overwrite(shard(cache, number), start, b"\xaa" * min(rng.choice([1, 4096]), size - start))
    report = sl.verify(cache, keep_going=True)
    assert unreadable(cache, pristine) <= concerned(report)
    assert len({fault.path for fault in report.faults}) == 3


def test_faults_are_told_as_they_are_found(cache: Path) -> None:
    flip(shard(cache, 0), 600)
    flip(shard(cache, 2), 600)
    told: list[sl.Fault] = []
    report = sl.verify(cache, keep_going=True, on_fault=told.append)
    assert tuple(told) == report.faults
    assert len(told) == 2


def test_a_missing_shard_is_a_fault_of_all_its_sequences(cache: Path) -> None:
    shard(cache, 1).unlink()
    with pytest.raises(sl.CacheIOError, match="shard-000001"):
        sl.verify(cache)
    (fault,) = sl.verify(cache, keep_going=True).faults
    assert (fault.error, fault.first_sequence, fault.last_sequence) == ("CacheIOError", 20, 40)
    assert "No such file" in fault.reason
    assert str(shard(cache, 1)) in str(fault)


def test_a_sound_shard_of_another_cache_is_a_fault(cache: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", [random_sequence(5)])
    shutil.copy(shard(tmp_path / "other", 0), shard(cache, 0))
    (fault,) = sl.verify(cache, keep_going=True).faults
    assert (fault.field, fault.first_sequence, fault.last_sequence) == ("uuid", 0, 20)


def test_another_digest_is_a_fault(cache: Path) -> None:
    manifest = read_manifest(cache)
    rows = [*manifest.shards]
    rows[2] = dataclasses.replace(rows[2], sha256="0" * 64)
    dataclasses.replace(manifest, shards=tuple(rows)).write(cache)
    sl.open(cache)
    with pytest.raises(sl.CorruptionError) as caught:
        sl.verify(cache)
    assert caught.value.field == "sha256"
    (fault,) = sl.verify(cache, keep_going=True).faults
    assert (fault.first_sequence, fault.last_sequence) == (40, 60)


def test_an_id_in_two_shards_is_a_fault(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [random_sequence(i) for i in range(4)])
    second = write(tmp_path / "b", [random_sequence(i) for i in (9, 2)])
    shutil.copy(shard(tmp_path / "b", 0), shard(tmp_path / "a", 1))
    row = dataclasses.replace(second.manifest.shards[0], file="shard-000001.slc")
    rows = (*first.manifest.shards, row)
    dataclasses.replace(first.manifest, shards=rows).write(tmp_path / "a")
    (fault,) = sl.verify(tmp_path / "a", keep_going=True).faults
    assert (fault.field, fault.first_sequence, fault.sequence_ids) == ("sequence_id", 5, (2,))


def test_shards_that_the_manifest_does_not_list_are_named(cache: Path) -> None:
    (cache / "shard-000007.slc.partial").write_bytes(b"")
    shutil.copy(shard(cache, 0), shard(cache, 5))
    assert sl.verify(cache).unlisted == ("shard-000005.slc", "shard-000007.slc.partial")


def test_a_damaged_manifest_ends_the_check(cache: Path) -> None:
    (cache / "manifest.json").write_text("{")
    with pytest.raises(sl.CorruptionError):
        sl.verify(cache, keep_going=True)


def test_a_manifest_replaced_meanwhile_is_refused(cache: Path) -> None:
    opened = sl.open(cache)
    manifest = read_manifest(cache)
    dataclasses.replace(manifest, complete=False).write(cache)
    with pytest.raises(sl.MismatchError, match="has changed"):
        opened.verify()


def test_progress_ends_at_the_total_and_an_error_in_it_ends_the_check(cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    sl.verify(cache, progress=lambda done, total: seen.append((done, total)), num_threads=3)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]

    def stop(_done: int, _total: int) -> None:
        raise RuntimeError("enough")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="enough"):
        sl.verify(cache, progress=stop)
    assert threading.active_count() == before


def test_arguments_are_checked(cache: Path) -> None:
    with pytest.raises(sl.InvalidArgumentError, match="num_threads must be from 1"):
        sl.verify(cache, num_threads=0)
    with pytest.raises(sl.InvalidArgumentError, match="keep_going must be"):
        sl.verify(cache, keep_going=1)  # type: ignore[arg-type]
    with pytest.raises(sl.InvalidArgumentError, match="digest must be 64"):
        sl.open(cache, digest="abc")
    with pytest.raises(sl.MismatchError, match="its digest is"):
        sl.open(cache, digest="0" * 64)
    assert len(sl.open(cache, digest=sl.open(cache).digest)) == NUM_SEQUENCES


def test_the_command_lists_faults_on_stderr_and_in_json(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sparselogits.cli import main

    flip(shard(cache, 0), 600)
    flip(shard(cache, 1), 600)
    assert main(["verify", "--keep-going", "--threads", "2", str(cache)]) == 1
    out, err = capsys.readouterr()
    assert err.count("it concerns sequences") == 2
    assert ["faults", "2"] in [line.split() for line in out.splitlines()]
    assert main(["verify", "--keep-going", "--json", str(cache)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert [fault["first_sequence"] for fault in report["faults"]] == [0, 20]
    assert main(["verify", str(cache)]) == 1
