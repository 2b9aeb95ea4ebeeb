"""The reference's loss on cases that can be worked out by hand."""

import math

import pytest
import torch

from av2tsam_cli.training.losses import mask_loss, soft_iou_loss


def test_undecided_logits_cost_ln_two_and_half_of_an_object() -> None:
    masks = torch.ones(1, 1, 4, 4)
    logits = torch.zeros(1, 1, 4, 4)
    assert float(soft_iou_loss(logits, masks)) == pytest.approx(0.5)
    assert float(mask_loss(logits, masks)) == pytest.approx(math.log(2) + 0.5)


def test_the_right_mask_costs_nothing() -> None:
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    assert float(mask_loss((masks - 0.5) * 60, masks)) == pytest.approx(0, abs=1e-6)


def test_an_empty_frame_that_is_surely_empty_is_right_and_has_a_gradient() -> None:
    # Probabilities underflow to zero here: the reference's 0/0 is a NaN that ends a training.
    logits = torch.full((2, 1, 4, 4), -120.0, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(2, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
