"""Crops around masks, and the decision whether a source is in view."""

import torch

from av2tsam_cli.embeddings.clip import ClipConfig, ClipEmbedder
from av2tsam_cli.model.preprocess import sam_image
from av2tsam_cli.words.seeing import SEEN_LOGIT, crop_masked, in_view

SIDE = 96


def logits_of(top: int, left: int, height: int, width: int, grid: int = 24) -> torch.Tensor:
    """Return logits (1, 1, grid, grid) of a rectangular mask."""
    logits = torch.full((1, 1, grid, grid), -5.0)
    logits[..., top : top + height, left : left + width] = 5.0
    return logits


def gradient() -> torch.Tensor:
    """Return a picture (1, 3, S, S) whose red is the column and whose green is the row."""
    ramp = torch.arange(SIDE, dtype=torch.uint8)
    blue = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    return torch.stack([ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE), blue])[None]


def colours_of(crop: torch.Tensor) -> torch.Tensor:
    """Return red and green of CLIP's input on the scale 0 to 255, (2, s, s)."""
    clip = ClipEmbedder(
        ClipConfig(embed_dim=8, image_size=16, layers=1, width=16, head_width=8, patch_size=16)
    )
    black, white = (
        clip.preprocess(torch.full((1, 3, 16, 16), level, dtype=torch.uint8))[0, :2, :1, :1]
        for level in (0, 255)
    )
    return (crop[0, :2] - black) / (white - black) * 255


def test_a_crop_shows_the_mask_with_as_much_around_it() -> None:
    crop = crop_masked(sam_image(gradient(), SIDE), logits_of(8, 10, 4, 6), 32)
    assert crop.shape == (1, 3, 32, 32)
    red, green = colours_of(crop)
    # The mask is 24 pixels wide from column 40 and 16 high from row 32; the crop is 48 wide.
    assert (red.min() - 28).abs() < 2
    assert (red.max() - 76).abs() < 2
    assert (green.min() - 16).abs() < 2
    assert (green.max() - 64).abs() < 2


def test_a_crop_at_the_border_stays_in_the_picture() -> None:
    red, green = colours_of(crop_masked(sam_image(gradient(), SIDE), logits_of(0, 20, 4, 4), 32))
    assert red.max() > 93
    assert green.min() < 2


def test_an_empty_mask_shows_the_whole_picture() -> None:
    red, _ = colours_of(crop_masked(sam_image(gradient(), SIDE), logits_of(0, 0, 0, 0), 32))
    assert red.min() < 3
    assert red.max() > 92


def test_a_source_needs_the_frame_or_its_mask_to_look_like_it() -> None:
    frame = torch.tensor([2.0, -9.0, -3.0, SEEN_LOGIT - 2, SEEN_LOGIT - 2])
    crop = torch.tensor([-4.0, -9.0, 6.0, SEEN_LOGIT, SEEN_LOGIT])
    iou = torch.tensor([0.5, 0.99, 0.5, 0.9, 0.1])
    assert in_view(frame, crop, iou).tolist() == [True, False, True, True, False]
