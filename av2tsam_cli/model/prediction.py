"""What passes between image encoder, mask decoder and their users."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """What the image encoder made of N images. C = decoder width, g = grid."""

    embedding: Tensor = field(repr=False)
    """(N, C, g, g)."""
    high_res: tuple[Tensor, ...] = field(default=(), repr=False)
    """SAM 2 only, finest first: (N, C/8, 4g, 4g) and (N, C/4, 2g, 2g)."""

    def select(self, index: Tensor) -> "ImageFeatures":
        """Features of the images at `index` (M,), which may name one several times."""
        return ImageFeatures(self.embedding[index], tuple(level[index] for level in self.high_res))


@dataclass(frozen=True)
class MaskPrediction:
    """What the mask decoder says about N images, each with one prompt."""

    logits: Tensor = field(repr=False)
    """All four masks, (N, 4, h, w). Mask 0 is the one for a single answer, 1 to 3 the choices."""
    iou: Tensor = field(repr=False)
    """Predicted IoU of each, (N, 4)."""
    object_score: Tensor | None = field(default=None, repr=False)
    """SAM 2 only: logit that there is an object at all, (N, 1). The paper does not use it."""


def select(prediction: MaskPrediction) -> Tensor:
    """Logits (N, 1, h, w) of the one of masks 1 to 3 with the highest predicted IoU."""
    best = prediction.iou[:, 1:].argmax(dim=1) + 1
    rows = torch.arange(best.shape[0], device=best.device)
    return prediction.logits[rows, best].unsqueeze(1)
