"""The values that pass between image encoder, mask decoder and their users."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """The image encoder's features of N images. C = decoder width, g = grid."""

    embedding: Tensor = field(repr=False)
    """(N, C, g, g)."""
    high_res: tuple[Tensor, ...] = field(default=(), repr=False)
    """SAM 2 only, finest first: (N, C/8, 4g, 4g) and (N, C/4, 2g, 2g)."""

    def select(self, index: Tensor) -> "ImageFeatures":
        """Return the features of the images at `index`, (M,), which may repeat images."""
        return ImageFeatures(self.embedding[index], tuple(level[index] for level in self.high_res))


@dataclass(frozen=True)
class MaskPrediction:
    """The mask decoder's output for N images with one prompt each."""

    logits: Tensor = field(repr=False)
    """All four masks, (N, 4, h, w): 0 is the single-mask output, 1 to 3 the multimask output."""
    iou: Tensor = field(repr=False)
    """Predicted IoU of each, (N, 4)."""
    object_score: Tensor | None = field(default=None, repr=False)
    """SAM 2 only: logit that an object is present, (N, 1). The paper does not use it."""


def best_mask(prediction: MaskPrediction) -> Tensor:
    """Return the logits (N, 1, h, w) of the mask, out of 1 to 3, with the highest predicted IoU."""
    best = prediction.iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(best.shape[0], device=best.device)
    return prediction.logits[rows, best].unsqueeze(1)


# SAM 2 calls mask 0 stable if moving the threshold by this margin hardly changes it.
STABILITY_MARGIN = 0.05
STABLE = 0.98


def single_mask(prediction: MaskPrediction) -> tuple[Tensor, Tensor]:
    """Return the single-mask output: mask 0, or for SAM 2, if that is unstable, the best of 1 to 3.

    Returns:
        Logits (N, 1, h, w) and predicted IoU (N, 1).
    """
    number = torch.zeros(len(prediction.iou), dtype=torch.long, device=prediction.iou.device)
    if prediction.object_score is not None:
        unstable = stability(prediction.logits[:, 0]) < STABLE
        number = torch.where(unstable, prediction.iou[:, 1:].argmax(dim=1) + 1, number)
    rows = torch.arange(len(number), device=number.device)
    return prediction.logits[rows, number].unsqueeze(1), prediction.iou[rows, number].unsqueeze(1)


def stability(logits: Tensor) -> Tensor:
    """Return the IoU of the masks at a slightly higher and lower threshold: (N, h, w) to (N,)."""
    inner = (logits > STABILITY_MARGIN).flatten(1).sum(dim=1)
    outer = (logits > -STABILITY_MARGIN).flatten(1).sum(dim=1)
    return torch.where(outer > 0, inner / outer, 1.0)
