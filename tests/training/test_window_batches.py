"""A student's windows over other sequences than its own: what batches hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sample_rows import check_rows, cut, joined
from small_cache import VOCAB, tokens_of, write_cache

from sparselogits import errors
from sparselogits.torch import SparseLogitDataset, sparse_kd_loss

LENGTHS = dict(enumerate([9, 0, 4, 1, 13, 2, 2, 8, 5, 1, 0, 6]))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("caches")
    return write_cache(folder / "c", list(LENGTHS.values()), shard_bytes=1)


def in_order(path: str, batch_size: int = 3, **keywords: Any) -> SparseLogitDataset:
    return SparseLogitDataset(path, batch_size, shuffle=False, drop_last=False, **keywords)


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("window", [1, 4, 5, 13, 100])
@pytest.mark.parametrize("cross", [False, True])
def test_every_position_is_in_its_place(path: str, cross: bool, window: int, drop: bool) -> None:
    samples = (joined if cross else cut)(LENGTHS, window, drop)
    dataset = in_order(
        path, window=window, cross_documents=cross, drop_partial_windows=drop, pad_token_id=7
    )
    batches = list(dataset)
    assert len(batches) == len(dataset) == -(-len(samples) // 3)
    for number, batch in enumerate(batches):
        rows = samples[3 * number : 3 * number + 3]
        check_rows(batch, rows, LENGTHS, pad_token_id=7)
        assert (batch.documents is not None) == cross


def test_the_label_behind_a_cut_is_the_next_token_of_the_sequence(path: str) -> None:
    batch = next(iter(in_order(path, window=4)))  # sequence 0, of 9 tokens
    tokens = tokens_of(0, 9).tolist()
    assert batch.labels.tolist() == [tokens[1:5], tokens[5:9], [-100] * 4]


def test_shuffled_windows_are_the_same_samples(path: str) -> None:
    for keywords in ({"window": 4}, {"window": 4, "cross_documents": True}):
        expected = [
            tuple(row.tolist())
            for batch in in_order(path, 1, **keywords)
            for row in batch.input_ids
        ]
        shuffled = SparseLogitDataset(path, 1, seed=1, drop_last=False, **keywords)
        found = [tuple(row.tolist()) for batch in shuffled for row in batch.input_ids]
        assert found != expected
        assert sorted(found) == sorted(expected)


def test_documents_of_joined_rows(path: str) -> None:
    window = 7
    samples = joined(LENGTHS, window, drop=False)
    batches = list(in_order(path, 4, window=window, cross_documents=True))
    for number, batch in enumerate(batches):
        rows = samples[4 * number : 4 * number + 4]
        width = max(map(len, rows))
        positions, ids, bounds = [], [], []
        for row, sample in enumerate(rows):
            last, document, position = None, -1, 0
            for column in range(width):
                sequence = sample[column][0] if column < len(sample) else "padding"
                if sequence != last:
                    bounds.append(row * width + column)
                    last, document, position = sequence, document + 1, 0
                positions.append(position)
                ids.append(-1 if sequence == "padding" else document)
                position += 1
        documents = batch.documents
        assert documents is not None
        assert documents.position_ids.flatten().tolist() == positions
        assert batch.position_ids is documents.position_ids
        assert documents.document_ids.flatten().tolist() == ids
        assert documents.cu_seqlens.tolist() == [*bounds, len(rows) * width]
        assert documents.max_seqlen == int(np.diff([*bounds, len(rows) * width]).max())
        assert documents.position_ids.shape == documents.document_ids.shape == (len(rows), width)
        dtypes = [documents.position_ids, documents.document_ids, documents.cu_seqlens]
        assert [t.dtype for t in dtypes] == [torch.int64, torch.int32, torch.int32]


def test_documents_move_and_pin_with_their_batch(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = next(iter(in_order(path, window=7, cross_documents=True)))
    moved = batch.to("meta", non_blocking=True).documents
    assert moved is not None
    tensors = (moved.position_ids, moved.document_ids, moved.cu_seqlens)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(t) or t.clone())
    assert batch.pin_memory().documents is not None
    assert len(pinned) == 8


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_position_ids_keep_documents_apart_in_hugging_face_models(
    path: str, attention: str
) -> None:
    """Logits of a document in the middle of a row are those that it has alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, attn_implementation=attention,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    (batch,) = in_order(path, 99, window=20, cross_documents=True)
    assert batch.documents is not None
    with torch.inference_mode():
        logits = model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False
        ).logits
        compared = 0
        for row, ids in enumerate(batch.documents.document_ids):
            for document in range(int(ids.max()) + 1):
                inside = ids == document
                alone = model(input_ids=batch.input_ids[row, inside][None]).logits[0]
                torch.testing.assert_close(logits[row, inside], alone)
                compared += 1
    assert compared == 12  # 10 sequences with positions, two of them cut in two
    loss = sparse_kd_loss(logits, batch.targets)
    assert torch.isfinite(loss)


def test_flash_attention_takes_the_bounds_of_documents(path: str) -> None:
    """The names are those that Hugging Face models hand on to the kernel."""
    from transformers.modeling_flash_attention_utils import FlashAttentionKwargs

    documents = next(iter(in_order(path, window=7, cross_documents=True))).documents
    assert documents is not None
    given = documents.flash_attention_kwargs
    assert set(given) <= set(FlashAttentionKwargs.__annotations__)
    assert given["cu_seq_lens_q"] is given["cu_seq_lens_k"] is documents.cu_seqlens
    assert given["max_length_q"] == given["max_length_k"] == documents.max_seqlen


def test_windows_over_tokens_of_the_caller(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bare")
    lengths = list(LENGTHS.values())
    bare = write_cache(folder / "c", lengths, store_tokens=False)
    given = [tokens_of(sequence, length) for sequence, length in LENGTHS.items()]
    for keywords, samples in (
        ({"window": 4}, cut(LENGTHS, 4, False)),
        ({"window": 7, "cross_documents": True}, joined(LENGTHS, 7, False)),
    ):
        (batch,) = in_order(bare, 99, input_ids=given, **keywords)
        check_rows(batch, samples, LENGTHS)
    given[4] = given[4][::-1]
    with pytest.raises(errors.FingerprintMismatchError):
        list(in_order(bare, window=4, input_ids=given))


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"window": 0}, "window must be from 1 to .*, got 0"),
        ({"window": 4.0}, "window must be an integer, got 4.0"),
        ({"cross_documents": True}, "cross_documents needs a window"),
        ({"drop_partial_windows": True}, "drop_partial_windows needs a window"),
        ({"window": 4, "cross_documents": 1}, "cross_documents must be True or False, got 1"),
        ({"window": 60, "drop_partial_windows": True, "drop_last": True}, "there are 0 samples"),
        ({"shuffle_block": 0, "shuffle": True}, "shuffle_block must be from 1 to .*, got 0"),
        ({"shuffle_block": 4}, "shuffle_block is 4 and shuffle False"),
        ({"open_blocks": 0}, "open_blocks must be from 1 to .*, got 0"),
    ],
)
def test_wrong_arguments(path: str, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=message):
        SparseLogitDataset(path, 1, **{"shuffle": False, **keywords})
