"""What SECURITY.md promises: no code comes out of a cache, and a digest pins what is read."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from caches import CONFIG, random_sequence, write

import sparselogits as sl
from sparselogits.torch import SparseLogitDataset

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "python" / "sparselogits").rglob("*.py"))
CORE = sorted(path for part in ("src", "csrc") for path in (ROOT / part).rglob("*.[ch]*"))

# Modules that turn bytes into code or objects of any type.
UNSAFE_MODULES = {
    *("pickle", "cPickle", "_pickle", "pickletools", "copyreg", "marshal", "shelve", "dbm"),
    *("dill", "cloudpickle", "joblib", "yaml", "jsonpickle", "runpy", "imp", "code", "ctypes"),
}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__", "breakpoint"}
# Functions that are safe only with the keyword, at this value.
NEEDS_KEYWORD = {("np", "load"): ("allow_pickle", False), ("torch", "load"): ("weights_only", True)}


def unsafe_uses(tree: ast.AST) -> Iterator[str]:
    """What must not be in the package, as `line: what`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in UNSAFE_MODULES:
                yield f"{node.lineno}: import of {name}"
        if isinstance(node, ast.Name) and node.id in UNSAFE_NAMES:
            yield f"{node.lineno}: {node.id}"
        if not isinstance(node, ast.Call):
            continue
        keywords = {
            keyword.arg: keyword.value.value
            for keyword in node.keywords
            if isinstance(keyword.value, ast.Constant)
        }
        if keywords.get("shell") or keywords.get("trust_remote_code"):
            yield f"{node.lineno}: a shell or remote code"
        called = node.func
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            name, value = NEEDS_KEYWORD.get((called.value.id, called.attr), ("", None))
            if name and keywords.get(name) is not value:
                yield f"{node.lineno}: {called.value.id}.{called.attr} without {name}={value}"
            if (called.value.id, called.attr) == ("os", "system"):
                yield f"{node.lineno}: os.system"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_package_has_no_way_to_run_what_it_reads(path: Path) -> None:
    assert list(unsafe_uses(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal",
        "from pickle import loads",
        "from multiprocessing.x import y; import dill.source",
        "eval('1')",
        "f = exec",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "subprocess.run('x', shell=True)",
        "os.system('x')",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(list(unsafe_uses(ast.parse(source)))) == 1


def test_the_core_starts_no_program_and_loads_no_code() -> None:
    assert len(CORE) > 50
    for path in CORE:
        text = path.read_text(encoding="utf-8")
        for word in ("dlopen", "popen", "system(", "execv", '"pickle', "py::pickle", "py::eval"):
            assert word not in text, f"{path}: {word}"


@pytest.fixture
def cache(tmp_path: Path) -> sl.Cache:
    return write(tmp_path / "c", [random_sequence(i) for i in range(12)])


def test_the_state_of_a_dataset_is_json(cache: sl.Cache) -> None:
    dataset = SparseLogitDataset(cache, 2, seed=2**63, epoch=5)
    batches = iter(dataset)
    next(batches), next(batches)
    state = dataset.state_dict()
    text = json.dumps(state, allow_nan=False)
    assert json.loads(text) == state == json.loads(json.dumps(dataset.state_after(2)))
    other = SparseLogitDataset(cache, 2, seed=2**63)
    other.load_state_dict(json.loads(text))
    rest = [batch.sequence_ids.tolist() for batch in batches]
    assert [batch.sequence_ids.tolist() for batch in other] == rest
    assert len(rest) == 4


def test_a_cache_is_json_and_shards_and_nothing_else(cache: sl.Cache) -> None:
    for path in Path(cache.path).iterdir():
        if path.name == "manifest.json":
            json.loads(path.read_bytes())
        else:
            assert path.read_bytes().startswith(b"\x89SLC\r\n\x1a\n")


def forge(path: Path) -> None:
    """Another valid cache in the place of the first one: everything in it is consistent."""
    for file in path.iterdir():
        file.unlink()
    write(path, [random_sequence(i) for i in range(100, 112)])


def test_checksums_do_not_stop_who_recomputes_them(cache: sl.Cache) -> None:
    """SECURITY.md says so; this shows it."""
    forge(Path(cache.path))
    sl.open(cache.path).verify()


def test_a_digest_pins_a_cache(cache: sl.Cache) -> None:
    digest = cache.digest
    path = Path(cache.path)
    assert digest == hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert sl.open(path, digest=digest).digest == digest
    forge(path)
    with pytest.raises(sl.MismatchError, match=rf"its digest is [0-9a-f]{{64}}, not {digest}"):
        sl.open(path, digest=digest)


def test_a_pinned_manifest_pins_every_byte_of_the_shards(tmp_path: Path, cache: sl.Cache) -> None:
    """A shard of the same uuid, sizes and totals, but another content, is found by its SHA-256."""
    shard = Path(cache.path) / "shard-000000.slc"
    before = shard.read_bytes()
    changed = [copy.deepcopy(random_sequence(i)) for i in range(12)]
    changed[3].input_ids[0] = (changed[3].input_ids[0] + 1) % CONFIG.vocab_size
    write(tmp_path / "d", changed)
    after = bytearray((tmp_path / "d" / "shard-000000.slc").read_bytes())
    assert len(after) == len(before), "tokens have a fixed width"
    with_uuid = _with_uuid(bytes(after), before[24:40])
    shard.write_bytes(with_uuid)
    pinned = sl.open(cache.path, digest=cache.digest)
    with pytest.raises(sl.CorruptionError) as caught:
        pinned.verify()
    assert (caught.value.path, caught.value.field) == (str(shard), "sha256")


def _with_uuid(data: bytes, uuid: bytes) -> bytes:
    """The same shard under another uuid, with every checksum made again."""
    crc = sl._core.crc32c
    out = bytearray(data)
    out[24:40] = uuid
    out[124:128] = crc(bytes(out[:124])).to_bytes(4, "little")
    chain = b""
    at, end = 128, len(out) - 64
    while at < end:
        payload = int.from_bytes(out[at + 8 : at + 12], "little")
        if out[at : at + 4] == b"CMIT":
            out[at + 32 + 24 : at + 32 + 28] = crc(chain).to_bytes(4, "little")
            last_chain = out[at + 32 + 24 : at + 32 + 28]
            out[at + 24 : at + 28] = crc(bytes(out[at + 32 : at + 64])).to_bytes(4, "little")
        head = uuid + at.to_bytes(8, "little") + bytes(out[at : at + 28])
        out[at + 28 : at + 32] = crc(head).to_bytes(4, "little")
        chain += out[at + 28 : at + 32]
        at += 32 + (payload + 7) // 8 * 8
    out[end + 48 : end + 52] = last_chain
    out[end + 60 : end + 64] = crc(uuid + bytes(out[end : end + 60])).to_bytes(4, "little")
    return bytes(out)


EVIL = {
    "title": "\x1b]0;owned\x07",
    "clear\x1b[2J": "keys too",
    "csi": "\x9b31m",
    "bidi": "\u202edesrever",
    "lines": "a\nb\rc",
    "fine": "café 東京 \U0001f600",
}


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_metadata_cannot_command_the_terminal(tmp_path: Path, json_flag: list[str]) -> None:
    with sl.CacheWriter(tmp_path / "c", CONFIG, EVIL) as writer:
        random_sequence(0).append_to(writer)
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-m", "sparselogits", "inspect", tmp_path / "c", *json_flag],
        capture_output=True,
        check=True,
    )
    text = done.stdout.decode("utf-8")
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\u001b]0;owned\\u0007" in text
    assert EVIL["fine"] in text
    if json_flag:
        assert json.loads(text)["metadata"] == EVIL
