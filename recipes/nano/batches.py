"""Batches of frames from the pool, and the true masks of prompts.

Letters: N frames, S = 128 pixels per side, K object slots, C categories.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.model.preprocess import SAM_MEAN, SAM_STD
from data import NAMES, SLOTS, Pool

CATEGORY_COUNT = len(NAMES)


@dataclass(frozen=True)
class Batch:
    """Frames with the region of every category."""

    frames: Tensor
    """(N, 3, S, S) uint8, RGB."""
    regions: Tensor
    """(N, C, S, S) bool: the visible pixels of each category."""
    present: npt.NDArray[np.bool_]
    """(N, C): whether at least `VISIBLE` pixels of a category are visible."""


VISIBLE = 40
"""Fewest visible pixels of an object that is used in prompts."""


def draw(pool: Pool, rng: np.random.Generator, size: int) -> Batch:
    """Draw a random batch, with random mirroring and colours."""
    rows = np.sort(rng.integers(len(pool.rgb), size=size))
    frames = torch.from_numpy(pool.rgb[rows]).permute(0, 3, 1, 2)
    ids = torch.from_numpy(pool.ids[rows])
    labels = torch.from_numpy(pool.labels[rows].astype(np.int64))
    mirrored = torch.from_numpy(rng.random(size) < 0.5)
    frames = torch.where(mirrored[:, None, None, None], frames.flip(-1), frames)
    ids = torch.where(mirrored[:, None, None], ids.flip(-1), ids)
    regions = _regions(ids, labels)
    present = (regions.sum((2, 3)) >= VISIBLE).numpy()
    return Batch(_recolour(frames, rng), regions, present)


def _regions(ids: Tensor, labels: Tensor) -> Tensor:
    """Return category regions (N, C, S, S) for slot ids (N, S, S) and slot labels (N, K)."""
    table = torch.full((len(ids), 256), CATEGORY_COUNT, dtype=torch.int64)
    table[:, 1 : SLOTS + 1] = torch.where(labels < 0, CATEGORY_COUNT, labels)
    category = table.gather(1, ids.flatten(1).long()).view_as(ids)
    return torch.stack([category == c for c in range(CATEGORY_COUNT)], 1)


def _recolour(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Swap colour channels in half of the batches; change brightness and contrast per frame."""
    if rng.random() < 0.5:
        frames = frames[:, torch.from_numpy(rng.permutation(3))]
    gain = torch.from_numpy(rng.uniform(0.75, 1.3, (len(frames), 1, 1, 1)).astype(np.float32))
    lift = torch.from_numpy(rng.uniform(-20, 20, (len(frames), 1, 1, 1)).astype(np.float32))
    return (frames.float() * gain + lift).clamp_(0, 255).to(torch.uint8)


def truth(batch: Batch, owners: npt.NDArray[np.int64], wanted: list[tuple[int, ...]]) -> Tensor:
    """Return the mask of each prompt at half resolution, as the covered share of each pixel.

    Args:
        batch: The frames.
        owners: The frame of each prompt, (P,).
        wanted: The categories in each prompt.

    Returns:
        (P, 1, S / 2, S / 2) float32 in [0, 1].
    """
    masks = torch.zeros(len(owners), *batch.regions.shape[2:], dtype=torch.bool)
    for row, categories in enumerate(wanted):
        for category in categories:
            masks[row] |= batch.regions[owners[row], category]
    return F.avg_pool2d(masks[:, None].float(), 2)


def sam_images(frames: Tensor) -> Tensor:
    """Normalise frames of S x S pixels for SAM: (N, 3, S, S) float32."""
    mean, std = (torch.tensor(c)[:, None, None] for c in (SAM_MEAN, SAM_STD))
    return (frames.float() - mean) / std
