"""Decide whether the sources that are heard are in view.

A text-prompted SAM was not trained with phrases for absent objects, and always masks something. So
CLIP compares each source's name with the frame and with the masked part of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.embeddings.clip import MEAN, STD
from av2tsam_cli.model.preprocess import SAM_MEAN, SAM_STD

SEEN_LOGIT = -4.0
"""Minimum of CLIP's logit for a source in view; it is low, as the logits of small objects are."""
CROP_SCALE = 2.0
"""Side of the crop around a mask, relative to the longer side of the mask's box."""
MIN_CROP = 3 / 16
"""Minimum side of the crop, relative to the frame."""


def in_view(frame_logits: Tensor, crop_logits: Tensor, iou: Tensor) -> Tensor:
    """Return which of M sources are in view, bool, (M,).

    Args:
        frame_logits: CLIP's logits of the names for the frames, (M,).
        crop_logits: CLIP's logits of the names for the masked crops, (M,).
        iou: Predicted IoU of the masks, (M,), which counts by at most one logit.
    """
    hint = torch.logit(iou, eps=1e-3).clamp(-1, 1)
    return (frame_logits + crop_logits) / 2 + hint >= SEEN_LOGIT


def crop_masked(images: Tensor, logits: Tensor, size: int) -> Tensor:
    """Crop images around masks, with some surroundings, as inputs of CLIP.

    Args:
        images: Inputs of SAM's image encoder, (M, 3, S, S).
        logits: Mask logits, (M, 1, h, w).
        size: Side of CLIP's input.

    Returns:
        Float32, (M, 3, size, size); the whole image where a mask is empty.
    """
    crops = [_crop(image, mask[0] > 0, size) for image, mask in zip(images, logits, strict=True)]
    return _renormalise(torch.stack(crops))


def _crop(image: Tensor, mask: Tensor, size: int) -> Tensor:
    side = image.shape[-1]
    top, left, extent = _square(mask)
    pixels = max(1, round(extent * side))
    y, x = (min(round(start * side), side - pixels) for start in (top, left))
    part = image[None, :, y : y + pixels, x : x + pixels].float()
    return F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]


def _square(mask: Tensor) -> tuple[float, float, float]:
    """Return top, left and side of the square to crop, as shares of the frame."""
    rows, columns = (mask.any(dim=d).nonzero()[:, 0].tolist() for d in (1, 0))
    if not rows:
        return 0.0, 0.0, 1.0
    height, width = mask.shape
    top, bottom = rows[0] / height, (rows[-1] + 1) / height
    left, right = columns[0] / width, (columns[-1] + 1) / width
    side = min(1.0, max(MIN_CROP, CROP_SCALE * max(bottom - top, right - left)))
    middles = ((top + bottom) / 2, (left + right) / 2)
    y, x = (min(max(middle - side / 2, 0.0), 1.0 - side) for middle in middles)
    return y, x, side


def _renormalise(images: Tensor) -> Tensor:
    """Convert (M, 3, s, s) from SAM's pixel statistics to CLIP's."""
    sam_mean, sam_std, mean, std = (
        torch.tensor(values, device=images.device)[:, None, None]
        for values in (SAM_MEAN, SAM_STD, MEAN, STD)
    )
    return ((images * sam_std + sam_mean) / 255 - mean) / std
