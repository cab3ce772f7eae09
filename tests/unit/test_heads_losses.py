from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.config import kinds
from pipeline_lib.config.joint_training import JointOptions
from pipeline_lib.config.load import parse_config
from pipeline_lib.config.training import Training
from pipeline_lib.core.errors import PipelineError
from pipeline_lib.heads.loss import loss_of
from pipeline_lib.heads.losses.order import pair_order
from pipeline_lib.heads.pairs import order_accuracy

LOSS_NAMES = kinds.kinds("heads.losses")


def order_loss(uncertainty: torch.Tensor, task_loss: torch.Tensor, **options: float) -> torch.Tensor:
    return loss_of(Training(**options))(uncertainty, task_loss)[0]


def order_loss_literally(uncertainty: list[float], task_loss: list[float], margin: float, leeway: float) -> float:
    """Eq. 3-5, one pair at a time."""
    total = 0.0
    for i in range(0, len(uncertainty), 2):
        if task_loss[i] > task_loss[i + 1] + leeway:
            sign = 1
        elif leeway == 0 or task_loss[i] + leeway < task_loss[i + 1]:
            sign = -1
        else:
            sign = 0
        total += max(0.0, margin - sign * (uncertainty[i] - uncertainty[i + 1]))
    return total / (len(uncertainty) // 2)


def test_order_loss_of_a_right_a_close_and_a_wrong_pair():
    uncertainty = torch.tensor([1.0, 0.5, 0.52, 0.5, 0.2, 0.6])
    task_loss = torch.tensor([3.0, 1.0, 3.0, 1.0, 3.0, 1.0])
    # Right by more than the margin: 0. Right by 0.02: 0.1 - 0.02. Wrong by 0.4: 0.1 + 0.4.
    assert order_loss(uncertainty, task_loss, margin=0.1).item() == pytest.approx((0 + 0.08 + 0.5) / 3, abs=1e-6)


def test_equal_task_losses_count_as_the_else_branch_of_equation_4():
    uncertainty = torch.tensor([0.2, 0.7])
    assert order_loss(uncertainty, torch.tensor([1.0, 1.0]), margin=0.1).item() == 0
    assert order_loss(uncertainty.flip(0), torch.tensor([1.0, 1.0]), margin=0.1).item() == pytest.approx(0.6)


def test_pairs_within_the_leeway_cost_the_margin_and_give_no_gradient():
    uncertainty = torch.tensor([0.9, 0.1, 0.3, 0.3], requires_grad=True)
    task_loss = torch.tensor([1.0, 1.5, 2.0, 1.0])
    loss = order_loss(uncertainty, task_loss, margin=0.1, leeway=0.5)
    loss.backward()
    assert loss.item() == pytest.approx((0.1 + 0.1) / 2)
    assert uncertainty.grad.tolist() == pytest.approx([0, 0, -0.5, 0.5])
    assert pair_order(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.5, 1.0, 1.0]), 0.5).tolist() == [0, 1, -1]


values = st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=24, max_size=24)


@given(values, values, st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([0.0, 0.25, 1.0]))
def test_order_loss_equals_its_literal_transcription(uncertainty, task_loss, margin, leeway):
    shaped = (torch.tensor(values).double().view(3, 8) for values in (uncertainty, task_loss))
    stacked = order_loss(*shaped, margin=margin, leeway=leeway)
    for head in range(3):
        rows = slice(head * 8, head * 8 + 8)
        expected = order_loss_literally(uncertainty[rows], task_loss[rows], margin, leeway)
        assert stacked[head].item() == pytest.approx(expected, abs=1e-12)


def test_squared_error_by_hand():
    squared_error = loss_of(Training(loss="squared_error"))
    loss, _ = squared_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 4.0], [1.0, 3.0]]))
    assert loss.tolist() == [2.0, 5.0]


def test_an_odd_last_image_has_no_part_in_the_order_loss():
    uncertainty, task_loss = torch.tensor([[1.0, 0.5, 3.0]]), torch.tensor([1.0, 3.0, 9.0])
    value, gradient = loss_of(Training())(uncertainty, task_loss)
    assert value.item() == pytest.approx(0.6)
    assert gradient.tolist() == [[1, -1, 0]]


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_every_loss_takes_shared_task_losses_and_keeps_heads_apart(name):
    loss = loss_of(Training(loss=name))
    uncertainty, task_loss = torch.rand(3, 10), torch.rand(10)
    value, gradient = loss(uncertainty, task_loss)
    assert value.shape == (3,)
    assert gradient.shape == (3, 10)
    for head in range(3):
        alone, gradient_alone = loss(uncertainty[head], task_loss)
        torch.testing.assert_close(value[head], alone)
        torch.testing.assert_close(gradient[head], gradient_alone)


@pytest.mark.parametrize("options", [*({"loss": name} for name in LOSS_NAMES), {"leeway": 0.3}], ids=str)
def test_gradients_are_those_of_autograd_and_of_finite_differences(options):
    generator = torch.Generator().manual_seed(1)
    uncertainty = torch.rand(2, 200, dtype=torch.float64, generator=generator).requires_grad_()
    task_loss = torch.rand(2, 200, dtype=torch.float64, generator=generator)
    loss = loss_of(Training(**options))
    assert torch.autograd.gradcheck(lambda u: loss(u, task_loss)[0], (uncertainty,))
    value, gradient = loss(uncertainty, task_loss)
    (expected,) = torch.autograd.grad(value.sum(), uncertainty)
    torch.testing.assert_close(gradient.detach(), expected)


def test_a_pair_at_exactly_its_margin_has_autograds_gradient_which_is_none():
    uncertainty, task_loss = torch.tensor([0.5, 0.5], requires_grad=True), torch.tensor([2.0, 1.0])
    loss = loss_of(Training(margin=0))
    value, gradient = loss(uncertainty, task_loss)
    (expected,) = torch.autograd.grad(value, uncertainty)
    assert expected.tolist() == gradient.tolist() == [0, 0]


def test_margin_and_leeway_come_from_the_recipe():
    uncertainty, task_loss = torch.tensor([0.5, 0.5]), torch.tensor([2.0, 1.0])
    assert loss_of(Training(margin=0.4))(uncertainty, task_loss)[0].item() == pytest.approx(0.4)
    uncertainty = torch.tensor([1.0, 0.0])
    assert loss_of(Training(leeway=0.5))(uncertainty, task_loss)[0].item() == 0
    assert loss_of(Training(leeway=2))(uncertainty, task_loss)[0].item() == pytest.approx(0.1)


def test_order_accuracy_leaves_out_ties_of_the_task_loss():
    uncertainty = torch.tensor([[2.0, 1.0, 1.0, 2.0, 5.0, 1.0, 3.0, 3.0]])
    task_loss = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    # Right, wrong, no order, undecided: one of three.
    assert order_accuracy(uncertainty, task_loss).tolist() == pytest.approx([1 / 3])


@pytest.mark.parametrize("section", [Training, JointOptions])
def test_options_stand_beside_the_loss_which_alone_has_them(section):
    recipe = section.model_validate({"loss": "order", "margin": 0.3})
    other, softened = recipe.changed({"loss": "squared_error"}), recipe.changed({"loss": "order", "leeway": 0.5})
    dumps = [one.model_dump(mode="json") for one in (recipe, other, softened)]
    assert [dump["loss"] for dump in dumps] == ["order", "squared_error", "order"]
    assert [dump.get("margin") for dump in dumps] == [0.3, None, 0.3]
    assert [dump.get("leeway") for dump in dumps] == [0.0, None, 0.5]
    assert [section.model_validate(dump) for dump in dumps] == [recipe, other, softened]
    assert not kinds.kinds_by_option("heads.losses").keys() & section.model_fields.keys(), "an option is hidden"


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"loss": "ordr"}, "training.loss: 'ordr' is not allowed: input should be .*; did you mean 'order'?"),
        ({"margin": -1}, "training.margin: -1 is not allowed"),
        ({"margn": 1}, "training.margn: unknown key; allowed here: batch_size, .*; did you mean 'margin'?"),
        (
            {"loss": "squared_error", "leeway": 1},
            "training.leeway: is an option of loss order, but the loss is squared",
        ),
    ],
)
def test_what_a_loss_does_not_have_is_refused_by_the_config(training, message):
    default = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
    with pytest.raises(PipelineError, match=message):
        parse_config(default | {"training": training})
