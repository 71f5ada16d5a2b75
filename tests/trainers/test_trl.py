"""TRL's SFTTrainer with the mixin and the collator."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from runs import after_one_step, assert_close, dense_loss, losses_of, parameters
from tiny import VOCABULARY, rows_of, student, tokens_of, write_cache
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig

import sparselogits as sl
from sparselogits import FingerprintMismatchError, InvalidArgumentError
from sparselogits.integrations.transformers import SparseLogitCollator
from sparselogits.integrations.trl import SparseKDSFTTrainer

LENGTHS = [3, 4, 2, 5, 20, 24, 18, 22]


def tokenizer() -> PreTrainedTokenizerFast:
    """Whose token i is written "ti", and 2 "</s>"."""
    names = [word(token) for token in range(VOCABULARY)]
    words = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token=word(0))
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=word(2), pad_token=word(0))


def word(token: int) -> str:
    return "</s>" if token == 2 else f"t{token}"


def text(tokens: list[int]) -> str:
    return " ".join(map(word, tokens))


def config(path: Any, **changes: Any) -> SFTConfig:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "max_steps": 1,
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "remove_unused_columns": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "activation_checkpointing": True,
        **changes,
    }
    return SFTConfig(str(path / "out"), **settings)


def trainer(path: Any, rows: Any, cache: sl.Cache, *, flatten: bool = False) -> SparseKDSFTTrainer:
    return SparseKDSFTTrainer(
        student(),
        config(path),
        SparseLogitCollator(cache, flatten=flatten),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer(),
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_tokenised_rows_have_the_gradient_of_one_big_batch(tmp_path, streamed):
    cache = write_cache(tmp_path / "cache", LENGTHS)
    rows = datasets.Dataset.from_list(rows_of(cache))
    run = trainer(tmp_path, rows.to_iterable_dataset() if streamed else rows, cache)
    loss = dense_loss(run.model, cache, range(8))
    expected = after_one_step(run.model, loss)
    assert run.evaluate()["eval_loss"] == pytest.approx(loss.item(), abs=1e-5)
    run.train()
    assert losses_of(run) == pytest.approx([loss.item()], abs=1e-5)
    assert_close(parameters(run.model), expected, 1e-5)


def test_flattened_batches_have_the_same_gradient(tmp_path):
    cache = write_cache(tmp_path / "cache", LENGTHS)
    rows = datasets.Dataset.from_list(rows_of(cache))
    run = trainer(tmp_path, rows, cache, flatten=True)
    expected = after_one_step(run.model, dense_loss(run.model, cache, range(8)))
    run.train()
    assert_close(parameters(run.model), expected, 1e-5)


def test_text_that_trl_tokenises_as_the_teacher_read_it_is_accepted(tmp_path):
    cache = write_cache(tmp_path / "cache", LENGTHS)
    rows = [
        {"text": text(row["input_ids"]), "sequence_id": row["sequence_id"]}
        for row in rows_of(cache)
    ]
    with pytest.raises(FingerprintMismatchError, match="0 tokens before and 1 behind"):
        trainer(tmp_path, datasets.Dataset.from_list(rows), cache).train()  # TRL appends an EOS
    ended = with_end_of_text(tmp_path / "ended")
    run = trainer(tmp_path, datasets.Dataset.from_list(rows), ended)
    run.train()
    assert losses_of(run) == pytest.approx([dense_loss(student(), ended, range(8)).item()], 1e-5)


def with_end_of_text(path: Any) -> sl.Cache:
    """Sequences of `LENGTHS`, and each with the end-of-text token behind it."""
    plain = write_cache(path / "plain", LENGTHS)
    config_ = sl.CacheConfig(vocab_size=VOCABULARY, rounds=plain.config.rounds)
    with sl.CacheWriter(path / "ended", config_) as writer:
        for record, length in zip(plain, LENGTHS, strict=True):
            tokens = [*tokens_of(int(record.sequence_id - 100) // 7, length), 2]
            offsets = [*record.offsets, record.offsets[-1]]
            writer.append(
                tokens, offsets, record.token_ids, record.counts, sequence_id=record.sequence_id
            )
    return sl.open(path / "ended")


def test_prompts_get_no_target(tmp_path):
    cache, plain = with_end_of_text(tmp_path), write_cache(tmp_path / "cache", LENGTHS)
    rows = [
        {
            "prompt": text(row["input_ids"][:2]),
            "completion": " " + text(row["input_ids"][2:]),
            "sequence_id": row["sequence_id"],
        }
        for row in rows_of(plain)
        if len(row["input_ids"]) > 2
    ]
    run = trainer(tmp_path, datasets.Dataset.from_list(rows), cache)
    batch = next(iter(run.get_train_dataloader()))
    first = (batch["sparse_targets"].offsets.diff() == 0).reshape(batch["input_ids"].shape)
    assert first[:, 0].all()  # token 1 is of the prompt
    assert not first[:, 1:].all()
    run.train()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"packing": True}, "packing is True"),
        ({"eval_packing": True}, "packing is True"),
        ({"loss_type": "dft"}, "loss_type is 'dft'"),
        ({"padding_free": True, "max_length": None}, "padding_free is True"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, named):
    cache = write_cache(tmp_path / "cache", [4])
    with pytest.raises(InvalidArgumentError, match=named):
        SparseKDSFTTrainer(
            student(),
            config(tmp_path, **changes),
            SparseLogitCollator(cache),
            train_dataset=datasets.Dataset.from_list(rows_of(cache)),
            processing_class=tokenizer(),
        )


def test_another_collator_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="data_collator is a NoneType"):
        SparseKDSFTTrainer(student(), config(tmp_path))
