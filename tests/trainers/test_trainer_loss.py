"""The Trainer's loss and gradient are those of one big batch, whatever batches and model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from runs import (
    LENGTHS,
    SparseKDTrainer,
    after_one_step,
    arguments,
    assert_close,
    dense_loss,
    dense_row,
    parameters,
    trainer,
)
from tiny import rows_of, student, write_cache

from sparselogits import InvalidArgumentError
from sparselogits.integrations.transformers import (
    SparseKDOptions,
    SparseLogitCollator,
    trainer_inputs,
)
from sparselogits.integrations.transformers.logit_map import LogitMap
from sparselogits.torch import SparseLogitMapDataset

FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "Phi": {},  # its head has a bias
    "Cohere": {"logit_scale": 0.25},
    "Granite": {"logits_scaling": 4.0},
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0},
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16, "init_std": 0.3},
}


@pytest.mark.parametrize(("size", "accumulated"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_accumulated_batches_have_the_gradient_of_one_big_batch(tmp_path, size, accumulated):
    model = student()
    run = trainer(
        tmp_path,
        model,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
    )
    loss = dense_loss(model, run.train_dataset.cache, range(8))
    expected = after_one_step(model, loss)
    run.train()
    assert_close(parameters(model), expected, 1e-5)
    assert run.state.log_history[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)


def test_last_update_of_an_epoch_may_have_fewer_batches(tmp_path):
    model = student()
    run = trainer(
        tmp_path, model, max_steps=-1, num_train_epochs=1, gradient_accumulation_steps=3,
        per_device_train_batch_size=2,
    )  # fmt: skip
    first = after_one_step(model, dense_loss(model, run.train_dataset.cache, range(6)))
    reference = student()
    reference.load_state_dict({**reference.state_dict(), **first})
    expected = after_one_step(reference, dense_loss(reference, run.train_dataset.cache, [6, 7]))
    run.train()
    assert run.state.global_step == 2
    assert_close(parameters(model), expected, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_head_of_a_family_gives_the_loss_of_its_logits(tmp_path, family):
    model = student(family, **FAMILIES[family])
    run = trainer(tmp_path, model, kd=SparseKDOptions(fused=True), per_device_train_batch_size=8)
    model.eval()  # OPT and Phi have dropout
    (batch,) = run.get_train_dataloader()
    loss = run.compute_loss(model, batch)
    expected = dense_loss(model, run.train_dataset.cache, range(8))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    fused = torch.autograd.grad(loss, list(model.parameters()))
    for found, wanted in zip(
        fused, torch.autograd.grad(expected, list(model.parameters())), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_bias_is_scaled_with_its_logits(tmp_path):
    model = student("Cohere", logit_scale=0.25)
    model.lm_head = torch.nn.Linear(16, 53)
    run = trainer(tmp_path, model, kd=SparseKDOptions(fused=True), per_device_train_batch_size=8)
    (batch,) = run.get_train_dataloader()
    expected = dense_loss(model, run.train_dataset.cache, range(8))
    loss = run.compute_loss(model, batch)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    (found,) = torch.autograd.grad(loss, [model.lm_head.bias])
    (wanted,) = torch.autograd.grad(expected, [model.lm_head.bias])
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def test_a_model_without_loss_keywords_accumulates_as_well(tmp_path):
    class Strict(type(student())):
        def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
            return super().forward(input_ids=input_ids, use_cache=use_cache)

    model = Strict(student().config)
    run = trainer(tmp_path, model, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    expected = after_one_step(model, dense_loss(model, run.train_dataset.cache, range(8)))
    run.train()
    assert_close(parameters(model), expected, 1e-5)


def test_scales_and_soft_caps_behind_the_head_are_found(tmp_path):
    found = {"Llama": LogitMap(), "Cohere": LogitMap(0.25), "Granite": LogitMap(0.25)}
    for family, expected in {**found, "Gemma2": LogitMap(1.0, 2.0)}.items():
        run = trainer(tmp_path / family, student(family, **FAMILIES[family]))
        run.compute_loss(run.model, next(iter(run.get_train_dataloader())))
        assert run._student._map == expected


def test_fused_step_never_holds_the_logits(tmp_path):
    run = trainer(tmp_path, student())
    batch = next(iter(run.get_train_dataloader()))
    shapes = []
    run.model.lm_head.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape)))
    run.compute_loss(run.model, batch)
    assert shapes[-1] == (1, 1, 1)  # before it the probe, of two tokens
    assert all(shape[1] <= 2 for shape in shapes)


def test_outputs_come_with_logits_where_they_are_asked_for(tmp_path):
    run = trainer(tmp_path, student())
    batch = next(iter(run.get_train_dataloader()))
    loss, outputs = run.compute_loss(run.model, batch, return_outputs=True)
    assert outputs.logits.shape == (*batch["input_ids"].shape, 53)
    assert loss.item() == pytest.approx(run.compute_loss(run.model, batch).item(), abs=1e-6)


def test_a_head_that_does_more_to_its_logits_takes_the_path_over_logits(tmp_path, caplog):
    model = student()
    original = type(model).forward

    def squared(*args: Any, **kwargs: Any) -> Any:
        outputs = original(model, *args, **kwargs)
        outputs.logits = outputs.logits**2
        return outputs

    model.forward = squared
    run = trainer(tmp_path, model, per_device_train_batch_size=8)
    (batch,) = run.get_train_dataloader()
    loss = run.compute_loss(model, batch)
    assert "computed from (B, S, V) logits" in caplog.text
    expected = dense_loss(model, run.train_dataset.cache, range(8))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    run._student.options = SparseKDOptions(fused=True)
    run._student._looked_at = None
    with pytest.raises(InvalidArgumentError, match="not a plain linear layer"):
        run.compute_loss(model, batch)


def test_temperature_reaches_the_loss(tmp_path):
    options = SparseKDOptions(temperature=2.0, scale_by_temperature_squared=True)
    run = trainer(tmp_path, student(), kd=options, per_device_train_batch_size=8)
    (batch,) = run.get_train_dataloader()
    fused = run.compute_loss(run.model, batch)
    run._student.options = SparseKDOptions(2.0, True, fused=False)
    assert fused.item() == pytest.approx(run.compute_loss(run.model, batch).item(), abs=1e-5)
    run._student.options = SparseKDOptions(fused=False)
    assert fused.item() != pytest.approx(run.compute_loss(run.model, batch).item(), abs=0.1)


def test_next_tokens_are_mixed_in_with_their_share(tmp_path):
    model = student()
    run = trainer(
        tmp_path,
        model,
        kd=SparseKDOptions(alpha=0.3),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    cache = run.train_dataset.cache
    terms = []
    for index in range(len(cache)):
        ids = torch.from_numpy(cache[index].input_ids).long()
        log_p = model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        lengths = np.diff(cache[index].offsets)
        for position in range(len(ids)):
            teacher = [dense_row(log_p[position], cache[index], position)] * bool(lengths[position])
            label = [-log_p[position, token] for token in ids[position + 1 : position + 2]]
            if teacher or label:
                terms.append(0.7 * sum(teacher) + 0.3 * sum(label))
    expected = after_one_step(model, torch.stack(terms).mean())
    run.train()
    assert_close(parameters(model), expected, 1e-5)


def test_collated_rows_have_the_gradient_of_whole_batches(tmp_path):
    model = student()
    cache = write_cache(tmp_path / "cache", LENGTHS)
    args = arguments(tmp_path / "out", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    run = SparseKDTrainer(
        model, args, train_dataset=rows_of(cache), data_collator=SparseLogitCollator(cache)
    )
    expected = after_one_step(model, dense_loss(model, cache, range(8)))
    run.train()
    assert_close(parameters(model), expected, 1e-5)


def test_samples_by_their_number_have_the_gradient_of_whole_batches(tmp_path):
    model = student()
    view = SparseLogitMapDataset(write_cache(tmp_path / "cache", LENGTHS))
    run = SparseKDTrainer(
        model,
        arguments(tmp_path / "out", per_device_train_batch_size=2, gradient_accumulation_steps=4),
        train_dataset=view,
        data_collator=lambda rows: trainer_inputs(view.collate(rows)),
    )
    expected = after_one_step(model, dense_loss(model, view.caches[0], range(8)))
    run.train()
    assert_close(parameters(model), expected, 1e-5)


def test_gradient_checkpointing_changes_nothing(tmp_path):
    model = student()
    run = trainer(tmp_path, model, per_device_train_batch_size=8, activation_checkpointing=True)
    expected = after_one_step(model, dense_loss(model, run.train_dataset.cache, range(8)))
    run.train()
    assert_close(parameters(model), expected, 1e-5)


def test_bfloat16_autocast_agrees_with_its_own_logits(tmp_path):
    losses = []
    for fused in (True, False):
        run = trainer(
            tmp_path / str(fused),
            student(),
            kd=SparseKDOptions(fused=fused),
            per_device_train_batch_size=8,
            bf16=True,
        )
        run.train()
        losses.append(run.state.log_history[0]["loss"])
    exact = dense_loss(student(), run.train_dataset.cache, range(8)).item()
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert losses[0] == pytest.approx(exact, abs=0.05)
    assert losses[0] != pytest.approx(exact, abs=1e-6)  # it was in bfloat16


def test_a_compiled_model_takes_the_path_over_logits(tmp_path, caplog):
    model = student()
    run = trainer(
        tmp_path,
        model,
        per_device_train_batch_size=8,
        torch_compile=True,
        torch_compile_backend="eager",
    )
    expected = after_one_step(model, dense_loss(model, run.train_dataset.cache, range(8)))
    run.train()
    assert "LlamaForCausalLM is compiled as a whole" in caplog.text
    assert_close(parameters(model), expected, 1e-5)


def test_router_loss_is_added_with_its_coefficient(tmp_path):
    model = student(
        "Mixtral", num_local_experts=4, num_experts_per_tok=2, output_router_logits=True,
        router_aux_loss_coef=0.5,
    )  # fmt: skip
    run = trainer(tmp_path, model, per_device_train_batch_size=8)
    (batch,) = run.get_train_dataloader()
    model.eval()
    expected = dense_loss(model, run.train_dataset.cache, range(8))
    router = model(input_ids=batch["input_ids"]).aux_loss
    loss = run.compute_loss(model, batch)
    assert loss.item() == pytest.approx((expected + 0.5 * router).item(), abs=1e-5)
