"""The reference's training loss: binary cross-entropy plus soft IoU."""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_iou_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the intersection over union of probabilities, mean over images.

    Where the true mask is empty and every probability underflows to zero, the reference divides
    zero by zero; here such an image counts as right (loss 0).

    Args:
        logits: Mask logits, float, (N, 1, H, W).
        masks: True masks, float in {0, 1}, (N, 1, H, W).

    Returns:
        A scalar in [0, 1].
    """
    probabilities = torch.sigmoid(logits)
    intersection = (probabilities * masks).sum((2, 3))
    union = (probabilities + masks).sum((2, 3)) - intersection
    agreed = union == 0
    ratio = (intersection + agreed) / (union + agreed)
    return 1 - ratio.mean()


def mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """BCE-with-logits plus `soft_iou_loss`; arguments as there."""
    return F.binary_cross_entropy_with_logits(logits, masks) + soft_iou_loss(logits, masks)
