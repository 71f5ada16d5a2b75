#!/usr/bin/env python3
"""Fuzzes the manifest with atheris, which is libFuzzer for Python; takes libFuzzer's arguments.

Half of the mutations are of bytes; the others change a member of the JSON and, mostly, give it
the checksum that fits, which bytes would hardly ever find.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import atheris

with atheris.instrument_imports(include=["sparselogits", "manifest_target", "json"]):
    import manifest_target

    from sparselogits import _core

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 2**24, 2**32, 2**63, 10**400, "", "..", "a/b", "\0"),
    *("packed", "counts", "weights", "bfloat16", "0" * 16, "f" * 32, "a" * 64, [], {}, [[]]),
    {"a": "b"},
)


def mutate_member(root: Any, choose: random.Random) -> None:
    """Replaces, removes, copies or adds one member, somewhere."""
    while isinstance(root, (dict, list)) and root:
        keys = list(root) if isinstance(root, dict) else range(len(root))
        key = choose.choice(list(keys))
        if isinstance(root[key], (dict, list)) and choose.random() < 0.8:
            root = root[key]
            continue
        action = choose.randrange(4)
        if action == 0:
            del root[key]
        elif action == 1 and isinstance(root, list):
            root.append(root[key])
        elif action == 2 and isinstance(root, dict):
            root[choose.choice(["new", "crc32c", "file", "codec"])] = choose.choice(VALUES)
        else:
            root[key] = choose.choice(VALUES)
        return


def with_checksum(root: dict[str, Any]) -> bytes:
    """The JSON text with the member that covers what is before it."""
    root.pop("crc32c", None)
    text = json.dumps(root).removesuffix("}").encode()
    text += b", " if root else b""
    return text + b'"crc32c": "%08x"}' % _core.crc32c(text)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's custom mutator."""
    choose = random.Random(seed)
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        root = None
    if not isinstance(root, dict) or choose.random() < 0.5:
        return bytes(atheris.Mutate(data, max_size))
    mutate_member(root, choose)
    text = with_checksum(root) if choose.random() < 0.8 else json.dumps(root).encode()
    return text if len(text) <= max_size else data


if __name__ == "__main__":
    atheris.Setup(sys.argv, manifest_target.check, custom_mutator=mutate)
    atheris.Fuzz()
