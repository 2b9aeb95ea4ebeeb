"""The reference's training loss: binary cross-entropy plus soft IoU. N = frames."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Resize = Callable[[Tensor, tuple[int, int]], Tensor]
"""Resizes logits (N, 1, h, w) to a height and width."""


def soft_iou_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return one minus the IoU of probabilities and mask, averaged over images.

    If the true mask is empty and all probabilities underflow to zero, the reference divides zero
    by zero; here the loss of such an image is 0.

    Args:
        logits: Mask logits, float, (N, 1, H, W).
        masks: True masks, float in {0, 1}, (N, 1, H, W).

    Returns:
        A scalar in [0, 1].
    """
    probabilities = torch.sigmoid(logits)
    intersection = (probabilities * masks).sum((2, 3))
    union = (probabilities + masks).sum((2, 3)) - intersection
    both_empty = union == 0
    iou = (intersection + both_empty) / (union + both_empty)
    return 1 - iou.mean()


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the binary cross-entropy plus `soft_iou_loss`; arguments as there."""
    return F.binary_cross_entropy_with_logits(logits, masks) + soft_iou_loss(logits, masks)


def batch_loss(resize: Resize, logits: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """Return the mean loss over the frames of several videos, each at the size of its mask.

    Args:
        resize: Resizes the logits; see `TextSam.resize`.
        logits: Logits of all frames, video after video, (N, 1, h, w).
        masks: True masks of each video, bool, (T, H, W); their sizes may differ.
    """
    targets = [mask[:, None].to(logits) for mask in masks]
    pairs = list(zip(torch.split(logits.float(), [len(t) for t in targets]), targets, strict=True))
    total = logits.new_zeros(())
    for size in dict.fromkeys((t.shape[2], t.shape[3]) for t in targets):
        predicted, true = zip(*(pair for pair in pairs if pair[1].shape[2:] == size), strict=True)
        target = torch.cat(true)
        total = total + mask_loss(resize(torch.cat(predicted), size), target) * len(target)
    return total / len(logits)
