"""The inputs of SAM and BEiT-3 against Pillow and torchvision."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from av2tsam_cli.model.preprocess import (
    SAM_MEAN,
    SAM_STD,
    beit_image,
    longest_side,
    sam_image,
    squash,
)


def frames(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def test_the_input_of_sam() -> None:
    batch = frames(45, 80)
    picture = Image.fromarray(batch[1].permute(1, 2, 0).numpy())
    pixels = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    expected = (pixels - np.array(SAM_MEAN, np.float32)) / np.array(SAM_STD, np.float32)
    result = sam_image(batch, 64)[1].permute(1, 2, 0)
    torch.testing.assert_close(result, torch.from_numpy(expected))


def test_the_aspect_ratio_can_be_kept() -> None:
    size = longest_side(45, 80, 128)
    assert size == (72, 128)
    assert sam_image(frames(45, 80), size).shape == (2, 3, 72, 128)


@pytest.mark.parametrize(("height", "width"), [(45, 80), (300, 200)])
def test_the_input_of_beit3_is_bicubic_without_antialiasing(height: int, width: int) -> None:
    batch = frames(height, width)
    reference = transforms.Compose(
        [
            transforms.Resize((64, 64), transforms.InterpolationMode.BICUBIC, antialias=False),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    torch.testing.assert_close(beit_image(batch, 64), reference(batch.float() / 255))


def test_squashing_averages_areas() -> None:
    rgb = np.zeros((4, 8, 3), np.uint8)
    rgb[:, ::2] = 200
    assert np.array_equal(squash(rgb, 4), np.full((4, 4, 3), 100, np.uint8))
