"""Compact caches for tests: small ones, whose training shards are small too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from caches import CONFIG, Sequence, random_sequence

import sparselogits as sl

COMPACT = dataclasses.replace(CONFIG, codec="compact")
# Enough for a model to save more than it takes.
TRAINING_POSITIONS = 2000
SEQUENCES = [random_sequence(i, 400) for i in range(12)]


def train_early(patch: pytest.MonkeyPatch) -> None:
    """Writers train on their first 2000 positions, five of SEQUENCES."""
    patch.setattr("sparselogits.training_shard.TRAINING_POSITIONS", TRAINING_POSITIONS)


def write_compact(
    path: Path, sequences: list[Sequence], config: sl.CacheConfig = COMPACT, **options: Any
) -> sl.Cache:
    """A finished compact cache of these sequences."""
    with sl.CacheWriter(path, config, {"teacher": "test"}, **options) as writer:
        for sequence in sequences:
            sequence.append_to(writer)
    return sl.open(path)


def model_files(path: Path) -> list[Path]:
    """The models that lie in a cache."""
    return sorted(path.glob("model-*"))


def assert_holds_its_files_only(path: Path) -> None:
    """Nothing hidden, temporary or unneeded lies in a finished or recovered cache."""
    manifest = sl.open(path).manifest
    listed = {row.file for row in (*manifest.shards, *manifest.models)}
    assert {file.name for file in path.iterdir()} == {"manifest.json", *listed}
    assert sl.open(path).nbytes == sum(file.stat().st_size for file in path.iterdir())
