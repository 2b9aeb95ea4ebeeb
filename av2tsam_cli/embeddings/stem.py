"""A residual convolutional stem, used instead of patch embedding when training from scratch."""

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class ConvStem(nn.Module):
    """One 3x3 convolution of stride 2 and one residual block per halving; widths double.

    N = images, S = side of the image, g = S / patch_size, D = dim.
    """

    def __init__(self, *, channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        halvings = int(math.log2(patch_size))
        widths = [channels, *(dim >> (halvings - 1 - n) for n in range(halvings))]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_conv(before, width, stride=2), nn.ReLU(), ResidualBlock(width))
                for before, width in pairwise(widths)
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, channels, S, S) to (N, g, g, D)."""
        return self.maps(images)[-1].permute(0, 2, 3, 1)

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the output of each stage, finest first: (N, D/2, 2g, 2g), then (N, D, g, g) ..."""
        maps: list[Tensor] = []
        for stage in self.stages:
            maps.append(stage(maps[-1] if maps else images))
        return maps


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, W, h, w) to the same shape."""
        return F.relu(maps + self.convs(maps))


def _conv(before: int, width: int, stride: int = 1) -> nn.Module:
    convolution = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width))
