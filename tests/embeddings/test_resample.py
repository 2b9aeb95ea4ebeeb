"""Resizing is bit-exact with Pillow, on the CPU and with the arithmetic for GPUs."""

import numpy as np
import pytest
import torch
from PIL import Image

from av2tsam_cli.embeddings.resample import resize, resize_fixed_point


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("filter_name", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "target"),
    [((90, 160), (64, 64)), ((37, 53), (128, 96)), ((64, 64), (64, 31)), ((5, 7), (224, 3))],
)
def test_both_implementations_equal_pillow(
    source: tuple[int, int], target: tuple[int, int], filter_name: str
) -> None:
    frames = picture(*source)
    method = Image.Resampling[filter_name.upper()]
    pictures = [Image.fromarray(f.permute(1, 2, 0).numpy()) for f in frames]
    expected = np.stack([np.asarray(p.resize(target[::-1], method)) for p in pictures])
    for function in (resize, resize_fixed_point):
        resized = function(frames, *target, filter_name)
        assert resized.dtype == torch.uint8
        assert np.array_equal(resized.permute(0, 2, 3, 1).numpy(), expected)


def test_a_frame_of_the_right_size_is_not_changed() -> None:
    frames = picture(16, 16)
    assert torch.equal(resize(frames, 16, 16, "bilinear"), frames)
