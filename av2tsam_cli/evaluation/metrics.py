"""AVSBench's metrics, mIoU and F, computed from counts. No files are read.

Source: Zhou et al., "Audio-Visual Segmentation", ECCV 2022, section 5.1, and the evaluation code of
the AVSBench repository. The AV2T-SAM reference implementation differs in one point: for F it
applies thresholds to raw logits instead of probabilities; see `ScoringProtocol`.

Letters: T frames of one video, H rows, W columns.
"""

import torch
from torch import Tensor

from av2tsam_cli.evaluation.options import ScoringProtocol

THRESHOLDS = 255
"""Number of thresholds for precision and recall, evenly spaced over [0, 1]."""
BETA_SQUARED = 0.3
"""Weight of recall relative to precision in F."""
_EMPTY_UNION = 1e-7
_EMPTY_COUNT = 1e-20


def predicted_masks(logits: Tensor) -> Tensor:
    """Return the predicted pixels, bool, of logits of any shape: probability above 0.5."""
    return torch.sigmoid(logits) > 0.5


def frame_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the intersection over union of each frame, with AVSBench's rule for empty frames.

    A frame whose true mask is empty is scored on its background: the share of its pixels that
    are predicted empty.

    Args:
        logits: Mask logits, float, (T, H, W).
        masks: True masks, bool, (T, H, W).

    Returns:
        float32, (T,), in [0, 1].
    """
    predicted = predicted_masks(logits)
    intersection = (predicted & masks).sum((1, 2))
    union = (predicted | masks).sum((1, 2))
    agreed_background = (~predicted & ~masks).sum((1, 2))
    empty = ~masks.any(2).any(1)
    intersection = torch.where(empty, agreed_background, intersection)
    union = torch.where(empty, masks.shape[1] * masks.shape[2], union)
    return intersection / (union + _EMPTY_UNION)


def video_iou(logits: Tensor, masks: Tensor) -> float:
    """Compute the mean of `frame_iou` over the frames of one video; same arguments."""
    return float(frame_iou(logits, masks).mean())


def video_f_score(logits: Tensor, masks: Tensor, protocol: ScoringProtocol = "avsbench") -> float:
    """Compute F of one video: the maximum over thresholds of the mean F curve of its frames.

    Frames whose true mask is empty are skipped. As in AVSBench, a video without other frames
    scores 0.

    Args:
        logits: Mask logits, float, (T, H, W).
        masks: True masks, bool, (T, H, W).
        protocol: Whether F is computed on probabilities or on raw logits.

    Returns:
        F in [0, 1].
    """
    scores = torch.sigmoid(logits) if protocol == "avsbench" else logits
    kept = masks.any(2).any(1)
    if not bool(kept.any()):
        return 0.0
    curves = [_f_curve(s, m) for s, m in zip(scores[kept], masks[kept], strict=True)]
    return float(torch.stack(curves).mean(0).max())


def _f_curve(scores: Tensor, mask: Tensor) -> Tensor:
    """Compute F at every threshold for one frame: scores (H, W) float, mask (H, W) bool."""
    thresholds = torch.linspace(0, 1 - 1e-10, THRESHOLDS, device=scores.device)
    # A pixel with score s is predicted at every threshold <= s, so one histogram serves them all.
    reached = torch.bucketize(scores.float().flatten(), thresholds, right=True)
    predicted = _count_at_thresholds(reached)
    true_positive = _count_at_thresholds(reached[mask.flatten()])
    precision = true_positive / (predicted + _EMPTY_COUNT)
    recall = true_positive / (mask.sum() + _EMPTY_COUNT)
    f_score = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return torch.nan_to_num(f_score)


def _count_at_thresholds(reached: Tensor) -> Tensor:
    """Count the pixels at or above each threshold, given how many thresholds each pixel reaches."""
    counts = torch.bincount(reached, minlength=THRESHOLDS + 1)
    return counts.flip(0).cumsum(0).flip(0)[1:].float()
