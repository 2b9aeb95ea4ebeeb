"""From mask logits at the network's size to masks and probabilities at the frame's own size.

The network gets the frame squashed to a square. Enlarging its logits to the frame's size undoes
that, and comes before the threshold, so that the edges of masks are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

Resize: TypeAlias = "Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]"
"""Enlarges logits (N, 1, h, w) to (N, 1, H, W), as `TextSam.resize` does."""


def native_mask(
    logits: torch.Tensor | None, size: tuple[int, int], threshold: float, *, resize: Resize
) -> BoolArray:
    """Return the pixels whose probability is above a threshold, bool, (H, W).

    Args:
        logits: Mask logits, (1, h, w), any float dtype, on any device; None for an empty mask.
        size: Height and width of the frame in pixels, (H, W).
        threshold: Probability in (0, 1).
        resize: How the network enlarges its logits.
    """
    level = logit(threshold)
    # Interpolated values are not greater than the greatest logit.
    if logits is None or not bool((logits > level).any()):
        return np.zeros(size, dtype=np.bool_)
    mask: BoolArray = (resize(logits[None].float(), size)[0, 0] > level).cpu().numpy()
    return mask


def native_labels(
    logits: torch.Tensor | None, size: tuple[int, int], threshold: float, *, resize: Resize
) -> UInt8Array:
    """Return which of K sources each pixel belongs to, uint8, (H, W): k for the k-th, 0 for none.

    Where masks overlap, that is the source with the highest probability. Arguments are those of
    `native_mask`, with logits (K, h, w) for at most 255 sources.
    """
    level = logit(threshold)
    if logits is None or not bool((logits > level).any()):
        return np.zeros(size, dtype=np.uint8)
    highest, source = resize(logits[None].float(), size)[0].max(dim=0)
    labels: UInt8Array = ((source + 1) * (highest > level)).to(torch.uint8).cpu().numpy()
    return labels


def native_probability(
    logits: torch.Tensor | None, size: tuple[int, int], *, resize: Resize
) -> Float32Array:
    """Return the probability that each pixel belongs to the mask, float32, (H, W).

    Arguments are those of `native_labels`: of several sources, the most probable one counts.
    """
    if logits is None:
        return np.zeros(size, dtype=np.float32)
    highest = resize(logits[None].float(), size)[0].amax(dim=0)
    probability: Float32Array = highest.sigmoid().cpu().numpy()
    return probability


def mean_scores(logits: torch.Tensor | None, threshold: float) -> tuple[float, tuple[float, ...]]:
    """Return the mean probability of a mask's pixels, and that of each of its K sources.

    Both are taken at the network's size, and 0 without such pixels. Arguments are those of
    `native_labels`.
    """
    if logits is None:
        return 0.0, ()
    values = logits.float().cpu()
    highest, source = values.max(dim=0)
    inside = highest > logit(threshold)
    probability = highest[inside].sigmoid()
    if not len(probability):
        return 0.0, (0.0,) * len(values)
    count = torch.bincount(source[inside], minlength=len(values))
    total = torch.bincount(source[inside], weights=probability, minlength=len(values))
    return float(probability.mean()), tuple((total / count.clamp(min=1)).tolist())


def logit(probability: float) -> float:
    """Return the logit whose sigmoid is `probability`, a number in (0, 1)."""
    return math.log(probability / (1.0 - probability))
