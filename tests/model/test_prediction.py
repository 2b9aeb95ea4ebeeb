"""Choosing one of the four masks."""

import pytest
import torch

from av2tsam_cli.model.sam import (
    ImageFeatures,
    MaskPrediction,
    best_mask,
    single_mask,
    stability,
)


def prediction(iou: list[list[float]], *, sam2: bool = False) -> MaskPrediction:
    """Mask k of image n is 10 n + k everywhere."""
    rows = len(iou)
    logits = torch.arange(4.0).expand(rows, 4) + 10 * torch.arange(float(rows))[:, None]
    score = torch.zeros(rows, 1) if sam2 else None
    return MaskPrediction(logits[..., None, None].repeat(1, 1, 2, 2), torch.tensor(iou), score)


def test_the_best_mask_is_one_of_masks_1_to_3() -> None:
    chosen = best_mask(prediction([[0.9, 0.1, 0.3, 0.2], [0.0, 0.5, 0.1, 0.4]]))
    assert chosen.shape == (2, 1, 2, 2)
    assert chosen[:, 0, 0, 0].tolist() == [2.0, 11.0]


def test_the_first_of_equal_scores_is_best() -> None:
    assert best_mask(prediction([[0.0, 0.7, 0.7, 0.7]])).flatten().tolist() == [1.0] * 4


def test_the_single_mask_of_sam_is_mask_0() -> None:
    logits, iou = single_mask(prediction([[0.2, 0.9, 0.1, 0.1]]))
    assert logits.flatten().tolist() == [0.0] * 4
    assert iou.item() == pytest.approx(0.2)


def test_sam2_falls_back_to_the_best_mask_if_mask_0_is_unstable() -> None:
    # Mask 0 of the first image is unstable: its logits, 0, lie between the two thresholds.
    logits, iou = single_mask(prediction([[0.2, 0.9, 0.1, 0.1], [0.3, 0.9, 0.1, 0.1]], sam2=True))
    assert logits[:, 0, 0, 0].tolist() == [1.0, 10.0]
    torch.testing.assert_close(iou[:, 0], torch.tensor([0.9, 0.3]))


def test_an_empty_mask_is_stable() -> None:
    masks = torch.stack([torch.full((2, 2), -9.0), torch.tensor([[1.0, 0.0], [-1.0, -1.0]])])
    assert stability(masks).tolist() == [1.0, 0.5]


def test_features_can_be_repeated_for_several_prompts() -> None:
    features = ImageFeatures(torch.arange(2.0).reshape(2, 1, 1, 1), (torch.arange(2.0),))
    several = features.select(torch.tensor([1, 1, 0]))
    assert several.embedding.flatten().tolist() == [1.0, 1.0, 0.0]
    assert several.high_res[0].tolist() == [1.0, 1.0, 0.0]
