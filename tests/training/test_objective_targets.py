"""The sparse targets that objectives make, and weights for hard tokens."""

from __future__ import annotations

import math

import dense_objectives as dense
import numpy as np
import pytest
import torch
from torch.nn import functional

import sparselogits as sl
from sparselogits.torch import SparseTargets, fused_linear_sparse_kd_loss, objectives


def densified(targets: SparseTargets, width: int = dense.VOCABULARY) -> torch.Tensor:
    row = torch.repeat_interleave(targets.offsets.diff())
    matrix = torch.zeros(targets.num_rows, width, dtype=torch.float64)
    return matrix.index_put((row, targets.token_ids.long()), targets.weights.double())


def probabilities(temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    _, teacher, _ = dense.make_rows()
    return teacher, torch.softmax(teacher.double() / temperature, -1)


def test_label_targets_are_certain_and_empty_without_a_label() -> None:
    targets = objectives.label_targets(torch.tensor([[3, -100], [5, 1]]), vocab_size=8)
    assert targets.offsets.tolist() == [0, 1, 1, 2, 3]
    assert targets.token_ids.tolist() == [3, 5, 1]
    assert targets.weights.tolist() == [1, 1, 1]
    assert targets.vocab_size == 8


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_k_and_top_p_are_the_kept_probabilities(renormalise: bool, temperature: float) -> None:
    teacher, p = probabilities(temperature)
    options = {"renormalise": renormalise, "temperature": temperature}
    for found, expected in (
        (objectives.top_k_targets(teacher, 5, **options), dense.top(p, k=5)),
        (objectives.top_p_targets(teacher, 0.7, **options), dense.top(p, mass=0.7)),
    ):
        if renormalise:
            expected = expected / expected.sum(-1, keepdim=True)
        torch.testing.assert_close(densified(found), expected, rtol=1e-5, atol=1e-8)
        assert found.vocab_size == dense.VOCABULARY


def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass() -> None:
    teacher, p = probabilities()
    targets = objectives.top_p_targets(teacher, 0.8)
    matrix = densified(targets)
    assert (matrix.sum(-1) >= 0.8 - 1e-6).all()
    least = torch.where(matrix > 0, matrix, 2).amin(-1)
    assert (matrix.sum(-1) - least < 0.8).all()
    everything = objectives.top_p_targets(teacher, 1.0)
    torch.testing.assert_close(densified(everything), p, rtol=1e-5, atol=1e-6)
    assert objectives.top_p_targets(teacher, 1e-9).offsets.diff().eq(1).all()


def test_rows_in_several_blocks_are_those_of_one() -> None:
    generator = torch.Generator().manual_seed(1)
    teacher = torch.randn(100, 40_000, generator=generator)
    whole = objectives.top_k_targets(teacher, 7)
    assert torch.equal(whole.token_ids.view(100, 7), teacher.topk(7).indices.sort(-1).values)
    mass = objectives.top_p_targets(teacher, 1e-3)
    last = objectives.top_p_targets(teacher[-1:], 1e-3)
    assert torch.equal(mass.token_ids[-last.num_entries :], last.token_ids)


def test_the_missing_mass_goes_to_the_label_once() -> None:
    _, teacher, labels = dense.make_rows()
    p = torch.softmax(teacher.double(), -1)
    naive = objectives.TopTokens(k=5, rest="label")
    targets = naive.sparse_targets(teacher_logits=teacher, labels=labels)
    expected = dense.TARGETS["naive_fix"](p, labels)
    torch.testing.assert_close(densified(targets), expected, rtol=1e-5, atol=1e-6)
    lengths = targets.offsets.diff()
    assert lengths[1] == 5  # the label is one of the kept
    assert lengths[2] == 6
    assert lengths[0] == 0  # no label


def test_labels_of_other_rows_are_refused() -> None:
    _, teacher, labels = dense.make_rows()
    naive = objectives.TopTokens(k=5, rest="label")
    with pytest.raises(sl.InvalidArgumentError, match="labels has 23 elements and targets has 24"):
        naive.sparse_targets(teacher_logits=teacher, labels=labels[1:])


def test_stored_top_tokens_are_used_as_they_are() -> None:
    student, teacher, labels = dense.make_rows()
    stored = objectives.top_k_targets(teacher, 5)
    for name, options in (
        ("top_k", {"k": 5}),
        ("naive_fix", {"k": 5}),
        ("ghost_token", {"k": 5}),
        ("smoothed_residual", {"k": 5}),
    ):
        live = objectives.make_objective(name, **options)
        kind = {"rest": "label"} if name == "naive_fix" else {}
        from_cache = type(live)(**kind)
        expected = live(student, labels=labels, teacher_logits=teacher)
        assert torch.equal(from_cache(student, stored, labels=labels), expected)


def test_empty_rows_are_ignored_by_every_objective_of_stored_tokens() -> None:
    student, _, labels = dense.make_rows()
    ids, weights = torch.tensor([4, 9]), torch.tensor([0.5, 0.2])
    offsets = torch.full((dense.ROWS + 1,), 2)
    offsets[:4] = 0
    stored = SparseTargets(offsets, ids, weights, dense.VOCABULARY)
    labels[3] = 9
    for objective in (
        objectives.TopTokens(),
        objectives.TopTokens(rest="label"),
        objectives.GhostToken(),
        objectives.SmoothedResidual(),
        objectives.SampledKD(),
    ):
        leaf = student.clone().requires_grad_()
        loss = objective(leaf, stored, labels=labels, reduction="none")
        loss.sum().backward()
        assert loss.nonzero().flatten().tolist() == [3]
        assert leaf.grad is not None
        assert leaf.grad.abs().sum(-1).nonzero().flatten().tolist() == [3]
        mean = objective(student, stored, labels=labels)
        torch.testing.assert_close(mean, loss.detach()[3])


def test_an_empty_row_with_a_label_has_its_share_of_the_labels_loss_alone() -> None:
    student, teacher, labels = dense.make_rows()
    full = objectives.top_k_targets(teacher, 5)
    stored = SparseTargets(
        torch.cat([torch.zeros(1, dtype=torch.int64), full.offsets[:-1]]),
        full.token_ids[:-5],
        full.weights[:-5],
        dense.VOCABULARY,
    )
    labels[0] = 3
    for kind in (objectives.TopTokens, objectives.GhostToken, objectives.SmoothedResidual):
        leaf = student.clone().requires_grad_()
        loss = kind(alpha=0.25)(leaf, stored, labels=labels, reduction="none")
        (gradient,) = torch.autograd.grad(loss[0], leaf)
        of_label = 0.25 * functional.cross_entropy(leaf[:1], labels[:1])
        torch.testing.assert_close(loss[0], of_label)
        torch.testing.assert_close(gradient, torch.autograd.grad(of_label, leaf)[0])


def test_rows_of_more_than_all_probability_are_refused() -> None:
    stored = SparseTargets(torch.tensor([0, 2]), torch.tensor([0, 1]), torch.tensor([0.7, 0.4]))
    for objective in (objectives.GhostToken(), objectives.SmoothedResidual()):
        with pytest.raises(sl.InvalidArgumentError, match=r"row 0 of targets sums to 1\.1"):
            objective(torch.zeros(1, 4), stored)


def test_draws_of_a_live_teacher_are_those_of_a_cache_and_have_its_mean() -> None:
    _, teacher, _ = dense.make_rows()
    keys = np.arange(dense.ROWS)
    draws = objectives.sampled_targets(
        teacher.view(4, 6, -1), keys, rounds=9, sampler="systematic", seed=3
    )
    expected = sl.sample(
        teacher.numpy(), rounds=9, sampler="systematic", seed=3, position_keys=keys
    )
    assert draws.token_ids.tolist() == expected.token_ids.tolist()
    assert draws.weights.tolist() == expected.weights.tolist()


def test_a_target_s_entropy() -> None:
    targets = SparseTargets(
        torch.tensor([0, 2, 2, 3]), torch.tensor([0, 1, 5]), torch.tensor([0.5, 0.5, 1.0])
    )
    assert objectives.target_entropy(targets).tolist() == pytest.approx([math.log(2), 0, 0])


@pytest.mark.parametrize("name", ["cross_entropy", "top_k", "naive_fix"])
def test_a_sparse_objective_of_a_head_is_that_of_its_logits(name: str) -> None:
    _, teacher, labels = dense.make_rows()
    hidden, weight = torch.randn(dense.ROWS, 7), torch.randn(dense.VOCABULARY, 7)
    options = {} if name == "cross_entropy" else {"k": 5}
    objective = objectives.make_objective(name, **options)
    assert isinstance(objective, objectives.SparseObjective)
    given = {"labels": labels, "teacher_logits": teacher, "temperature": 1.4}
    loss = objective.of_head(hidden, weight, chunk_rows=5, **given)
    torch.testing.assert_close(loss, objective(functional.linear(hidden, weight), **given))
    made = objective.sparse_targets(**given)
    if name == "cross_entropy":
        made = objectives.label_targets(labels)
    torch.testing.assert_close(
        loss, fused_linear_sparse_kd_loss(hidden, weight, made, temperature=1.4)
    )


def test_confidence_of_a_live_teacher_and_of_its_draws() -> None:
    _, teacher, labels = dense.make_rows()
    p = torch.softmax(teacher.double(), -1)
    expected = (p * dense.one_hot(labels)).sum(-1).float()
    found = objectives.label_confidence(teacher.view(4, 6, -1), labels.view(4, 6))
    torch.testing.assert_close(found, expected.view(4, 6))
    draws = objectives.sampled_targets(teacher, np.arange(dense.ROWS), rounds=20)
    found = objectives.label_confidence(draws, labels)
    expected = (densified(draws) * dense.one_hot(labels)).sum(-1).float()
    torch.testing.assert_close(found, expected)


def test_hard_tokens_weigh_more_and_the_mean_weight_is_one() -> None:
    confidence = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.8, 0.0]])
    weights = objectives.hard_token_weights(confidence, ratio=3.0, share=0.5)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.5, 0.5], [1.5, 0.5, 1.5]]))
    mask = confidence > 0
    weights = objectives.hard_token_weights(confidence, ratio=4.0, share=0.4, mask=mask)
    torch.testing.assert_close(weights, torch.tensor([[1, 4, 1], [4, 1, 0]]) * (5 / 11))
    assert not objectives.hard_token_weights(confidence, mask=confidence > 2).any()
    easy = objectives.hard_token_weights(torch.ones(1), ratio=0.25, share=1.0)
    assert easy.tolist() == [1.0]


def test_equal_confidences_still_give_the_wanted_share() -> None:
    weights = objectives.hard_token_weights(torch.zeros(10), ratio=2.0, share=0.3)
    assert (weights > 1).tolist() == [True] * 3 + [False] * 7


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"ratio": 0.0}, r"ratio is 0\.0"),
        ({"share": 1.2}, r"share is 1\.2"),
        ({"mask": torch.ones(3, dtype=torch.bool)}, "mask has shape"),
    ],
)
def test_wrong_weights_of_hard_tokens_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(sl.InvalidArgumentError, match=message):
        objectives.hard_token_weights(torch.rand(4), **keywords)
