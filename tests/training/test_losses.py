"""The reference's loss, on cases computed by hand and on videos of different sizes."""

import math
from pathlib import Path

import pytest
import torch

from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.training.losses import batch_loss, mask_loss, soft_iou_loss


def test_zero_logits_cost_ln_two_plus_half() -> None:
    masks = torch.ones(1, 1, 4, 4)
    logits = torch.zeros(1, 1, 4, 4)
    assert float(soft_iou_loss(logits, masks)) == pytest.approx(0.5)
    assert float(mask_loss(logits, masks)) == pytest.approx(math.log(2) + 0.5)


def test_correct_mask_has_zero_loss() -> None:
    masks = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    assert float(mask_loss((masks - 0.5) * 60, masks)) == pytest.approx(0, abs=1e-6)


def test_confidently_empty_prediction_of_an_empty_mask_has_zero_loss_and_finite_gradient() -> None:
    # Probabilities underflow to zero here, where the reference's 0/0 gives a NaN loss.
    logits = torch.full((2, 1, 4, 4), -120.0, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(2, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_every_frame_has_the_same_weight_whatever_its_video_and_size(tiny_model: Path) -> None:
    resize = load_network(tiny_model).text_sam.resize
    logits = torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = [torch.rand(2, 24, 24) > 0.5, torch.rand(1, 20, 40) > 0.5, torch.rand(3, 24, 24) > 0.5]
    frames = [mask for video in masks for mask in video]
    single = [
        mask_loss(
            resize(logits[n : n + 1], (mask.shape[0], mask.shape[1])), mask[None, None].float()
        )
        for n, mask in enumerate(frames)
    ]
    loss = batch_loss(resize, logits, masks)
    assert float(loss) == pytest.approx(float(torch.stack(single).mean()), rel=1e-5)
