"""Convert mask logits at the network's size to masks and probabilities at the frame's size.

The network sees the frame squashed to a square; its logits are enlarged to the frame's size. This
comes before the threshold, so that the edges of masks are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
import torch

from av2tsam_cli.refine import refine
from av2tsam_cli.values import Float32Array, UInt8Array

MIN_ENLARGEMENT = 1.25
"""Minimum enlargement for edges to be refined: pixels of the frame's shorter side per cell of the
logits."""
MAX_OUTSIDE = 127
"""Highest opacity of a pixel outside the mask."""
Resize: TypeAlias = "Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]"
"""Enlarges logits (N, 1, h, w) to (N, 1, H, W), as `TextSam.resize` does."""


def native_labels(
    logits: torch.Tensor | None, size: tuple[int, int], threshold: float, *, resize: Resize
) -> UInt8Array:
    """Return the source of each pixel, uint8, (H, W): k for the k-th of K sources, 0 for none.

    Where masks overlap, the source with the highest probability counts.

    Args:
        logits: Mask logits of at most 255 sources, (K, h, w), any float dtype, on any device; None
            for an empty mask.
        size: Height and width of the frame in pixels, (H, W).
        threshold: Probability in (0, 1) above which a pixel belongs to a source.
        resize: How the network enlarges its logits.
    """
    level = logit(threshold)
    # Interpolation does not exceed the largest logit, so nothing needs to be enlarged.
    if logits is None or not bool((logits > level).any()):
        return np.zeros(size, dtype=np.uint8)
    highest, source = resize(logits[None].float(), size)[0].max(dim=0)
    labels: UInt8Array = ((source + 1) * (highest > level)).to(torch.uint8).cpu().numpy()
    return labels


def native_masks(
    logits: torch.Tensor | None,
    rgb: UInt8Array,
    threshold: float,
    *,
    resize: Resize,
    edges: bool,
) -> tuple[UInt8Array, UInt8Array | None]:
    """Return the labels of `native_labels`, and the opacity of their pixels if edges are refined.

    Args:
        logits: Mask logits of K sources, (K, h, w); None for an empty mask.
        rgb: The frame, uint8, (H, W, 3), RGB.
        threshold: Probability in (0, 1).
        resize: How the network enlarges its logits.
        edges: Whether to refine edges, if the frame is large enough.

    Returns:
        The labels, uint8, (H, W), and the sum of the opacities from `refine` over all sources, or
        None.
    """
    size, level = rgb.shape[:2], logit(threshold)
    if not edges or logits is None or min(size) < MIN_ENLARGEMENT * max(logits.shape[1:]):
        return native_labels(logits, size, threshold, resize=resize), None
    values = logits.float().cpu().numpy() - np.float32(level)
    labels, total, highest = (np.zeros(size, np.uint8) for _ in range(3))
    for k, own in enumerate(values):
        others = np.delete(values, k, axis=0).max(axis=0, initial=0)
        alpha = refine(rgb, own - others)
        labels[alpha > highest] = k + 1
        highest, total = cv2.max(highest, alpha), cv2.add(total, alpha)
    labels[total <= MAX_OUTSIDE] = 0
    return labels, total


def native_probability(
    logits: torch.Tensor | None, size: tuple[int, int], *, resize: Resize
) -> Float32Array:
    """Return the probability that each pixel belongs to the mask, float32, (H, W).

    Of several sources, the most probable one counts. See `native_labels` for the arguments.
    """
    if logits is None:
        return np.zeros(size, dtype=np.float32)
    highest = resize(logits[None].float(), size)[0].amax(dim=0)
    probability: Float32Array = highest.sigmoid().cpu().numpy()
    return probability


def mean_scores(logits: torch.Tensor | None, threshold: float) -> tuple[float, tuple[float, ...]]:
    """Return the mean probability of a mask's pixels, and of the pixels of each of its K sources.

    Both are computed at the network's size, and 0 without pixels. See `native_labels` for the
    arguments.
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
