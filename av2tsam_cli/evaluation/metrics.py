"""AVSBench's two scores, mIoU and F, as counts first and a division last; no files are touched.

Source: Zhou et al., "Audio-Visual Segmentation", ECCV 2022, section 5.1, and the evaluation of the
AVSBench repository. The reference implementation of AV2T-SAM differs in one point: it thresholds
raw logits instead of probabilities when it computes F; `ScoringProtocol` names the two.

Letters: T frames of one video, H rows, W columns.
"""

from enum import StrEnum

import torch
from torch import Tensor

THRESHOLDS = 255
"""Thresholds at which precision and recall are taken, evenly over [0, 1]."""
BETA_SQUARED = 0.3
"""Weight of recall against precision in F."""
_EMPTY_UNION = 1e-7
_EMPTY_COUNT = 1e-20


class ScoringProtocol(StrEnum):
    """Whose rule decides what F is computed on."""

    AVSBENCH = "avsbench"
    """Probabilities: the sigmoid is applied first."""
    REFERENCE = "reference"
    """Raw logits, as the AV2T-SAM reference does."""


def frame_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union of each frame, with AVSBench's rule for empty frames.

    A frame whose true mask is empty is scored on its background: the share of its pixels that
    are predicted empty.

    Args:
        logits: Mask logits, float, (T, H, W).
        masks: True masks, bool, (T, H, W).

    Returns:
        float32, (T,), in [0, 1].
    """
    predicted = torch.sigmoid(logits) > 0.5
    intersection = (predicted & masks).sum((1, 2))
    union = (predicted | masks).sum((1, 2))
    agreed_background = (~predicted & ~masks).sum((1, 2))
    empty = ~masks.any(2).any(1)
    intersection = torch.where(empty, agreed_background, intersection)
    union = torch.where(empty, masks.shape[1] * masks.shape[2], union)
    return intersection / (union + _EMPTY_UNION)


def video_iou(logits: Tensor, masks: Tensor) -> float:
    """Mean of `frame_iou` over the frames of one video; arguments as there."""
    return float(frame_iou(logits, masks).mean())


def video_f_score(
    logits: Tensor, masks: Tensor, protocol: ScoringProtocol = ScoringProtocol.AVSBENCH
) -> float:
    """Largest F over all thresholds, of the mean F curve of the frames of one video.

    Frames whose true mask is empty are left out; a video that has no other frame scores 0, as in
    AVSBench.

    Args:
        logits: Mask logits, float, (T, H, W).
        masks: True masks, bool, (T, H, W).
        protocol: Whether F is computed on probabilities or on raw logits.

    Returns:
        F in [0, 1].
    """
    scores = torch.sigmoid(logits) if protocol is ScoringProtocol.AVSBENCH else logits
    kept = masks.any(2).any(1)
    if not bool(kept.any()):
        return 0.0
    curves = [_f_curve(s, m) for s, m in zip(scores[kept], masks[kept], strict=True)]
    return float(torch.stack(curves).mean(0).max())


def _f_curve(scores: Tensor, mask: Tensor) -> Tensor:
    """F at every threshold for one frame: scores (H, W) float, mask (H, W) bool."""
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device=scores.device)
    # A pixel with score s is predicted at every threshold <= s, so one histogram serves them all.
    reached = torch.bucketize(scores.float().flatten(), thresholds, right=True)
    predicted = _at_or_above(reached)
    true_positive = _at_or_above(reached[mask.flatten()])
    precision = true_positive / (predicted + _EMPTY_COUNT)
    recall = true_positive / (mask.sum() + _EMPTY_COUNT)
    f_score = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return torch.nan_to_num(f_score)


def _at_or_above(reached: Tensor) -> Tensor:
    """How many pixels reach each threshold, given how many thresholds each pixel reaches."""
    counts = torch.bincount(reached, minlength=THRESHOLDS + 1)
    return counts.flip(0).cumsum(0).flip(0)[1:].float()
