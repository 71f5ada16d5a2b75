"""What batches have to hold, told from the places of their positions alone."""

from __future__ import annotations

from typing import TypeAlias

from small_cache import FIRST_ID, ROUNDS, entries_of, tokens_of

from sparselogits.torch import Batch

Place: TypeAlias = tuple[int, int]
"""Sequence and position."""


def cut(lengths: dict[int, int], window: int, drop: bool) -> list[list[Place]]:
    """Sequences cut every `window` positions, one after another."""
    samples = []
    for sequence, length in lengths.items():
        places = [(sequence, position) for position in range(length)]
        samples += [places[at : at + window] for at in range(0, length, window)]
    return [sample for sample in samples if len(sample) == window or not drop]


def joined(lengths: dict[int, int], window: int, drop: bool) -> list[list[Place]]:
    """Sequences end to end, cut every `window` positions."""
    line = [(sequence, p) for sequence, length in lengths.items() for p in range(length)]
    samples = [line[at : at + window] for at in range(0, len(line), window)]
    return [sample for sample in samples if len(sample) == window or not drop]


def check_rows(
    batch: Batch, samples: list[list[Place]], lengths: dict[int, int], pad_token_id: int = 0
) -> None:
    """Every number of the batch is that of its place."""
    width = max(map(len, samples))
    assert batch.input_ids.shape == batch.labels.shape == (len(samples), width)
    assert batch.lengths.tolist() == list(map(len, samples))
    offsets = batch.targets.offsets.tolist()
    assert offsets[-1] == batch.targets.num_entries
    for row, sample in enumerate(samples):
        assert batch.sequence_ids[row] == FIRST_ID + 3 * sample[0][0]
        for column in range(width):
            entries = slice(*offsets[row * width + column :][:2])
            weights = (batch.targets.weights[entries] * ROUNDS).round().int().tolist()
            found = (
                int(batch.input_ids[row, column]),
                int(batch.labels[row, column]),
                (batch.targets.token_ids[entries].tolist(), weights),
            )
            if column >= len(sample):
                assert found == (pad_token_id, -100, ([], []))
                continue
            sequence, position = sample[column]
            tokens = [*tokens_of(sequence, lengths[sequence]).tolist(), -100]
            assert found == (tokens[position], tokens[position + 1], entries_of(*sample[column]))
