"""From mask logits at the network's size to masks at each frame's own size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

BoolArray = npt.NDArray[np.bool_]


def native_masks(
    logits: torch.Tensor, sizes: Sequence[tuple[int, int]], threshold: float = 0.5
) -> list[BoolArray]:
    """Enlarge logits to each frame's size and keep the pixels whose probability is above threshold.

    The network saw the frame squashed to a square, so the enlargement undoes the squashing too. It
    is bilinear and comes before the threshold, which gives smooth edges.

    Args:
        logits: Mask logits, (B, 1, h, w), any float dtype, on any device.
        sizes: (H, W) of each of the B frames, in pixels.
        threshold: Probability in (0, 1).

    Returns:
        B masks, bool, (H, W).
    """
    level = logit(threshold)
    return [_native_mask(one, size, level) for one, size in zip(logits, sizes, strict=True)]


def logit(probability: float) -> float:
    """The logit at which a sigmoid gives `probability`, a number in (0, 1)."""
    return math.log(probability / (1.0 - probability))


def _native_mask(logits: torch.Tensor, size: tuple[int, int], level: float) -> BoolArray:
    if not bool((logits > level).any()):  # what lies between such values is no greater
        return np.zeros(size, dtype=np.bool_)
    enlarged = F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)
    mask: BoolArray = (enlarged[0, 0] > level).cpu().numpy()
    return mask
