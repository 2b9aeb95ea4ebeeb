"""From mask logits at the network's size to masks at each frame's own size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

BoolArray = npt.NDArray[np.bool_]


def bilinear(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Logits (N, M, h, w) at another size, (N, M, *size)."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def native_masks(
    logits: torch.Tensor,
    sizes: Sequence[tuple[int, int]],
    threshold: float = 0.5,
    *,
    resize: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] = bilinear,
) -> list[BoolArray]:
    """Enlarge logits to each frame's size and keep the pixels whose probability is above threshold.

    The network saw the frame squashed to a square, so the enlargement undoes the squashing too. It
    comes before the threshold, which gives smooth edges.

    Args:
        logits: Mask logits, (B, 1, h, w), any float dtype, on any device.
        sizes: (H, W) of each of the B frames, in pixels.
        threshold: Probability in (0, 1).
        resize: How logits are enlarged; a network's own way where it has one.

    Returns:
        B masks, bool, (H, W).
    """
    level = logit(threshold)
    masks = []
    for one, size in zip(logits[:, None], sizes, strict=True):
        if bool((one > level).any()):
            mask: BoolArray = (resize(one.float(), size)[0, 0] > level).cpu().numpy()
        else:  # what lies between such values is no greater
            mask = np.zeros(size, dtype=np.bool_)
        masks.append(mask)
    return masks


def logit(probability: float) -> float:
    """The logit at which a sigmoid gives `probability`, a number in (0, 1)."""
    return math.log(probability / (1.0 - probability))
