"""Stage 1: the CLAP and the CLIP tower learn from captions of what is heard and seen.

A window or a frame is matched with every caption "the dog", "the bell" …; a caption is true of
it or not, so the loss is the pairwise sigmoid one (Zhai et al., "Sigmoid Loss for Language Image
Pre-Training", 2023), which lets two captions be true at once.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batches import CATEGORY_COUNT, draw
from data import Mixer, Pool
from loop import Log, fit, groups, trainable


class Captions(nn.Module):
    """One learned embedding per caption, with the loss's scale and bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(CATEGORY_COUNT, width))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-5.0))

    def forward(self, embeddings: Tensor) -> Tensor:
        """How well each caption fits: (N, width) -> logits (N, C)."""
        similarity = F.normalize(embeddings, dim=1) @ F.normalize(self.table, dim=1).T
        return self.scale * similarity + self.bias


def heard(rng: np.random.Generator) -> tuple[int, ...]:
    """Categories that sound in a window: mostly one, often two, sometimes none or three."""
    count = int(rng.choice(4, p=(0.08, 0.47, 0.35, 0.10)))
    return tuple(int(c) for c in rng.choice(CATEGORY_COUNT, count, replace=False))


def train_clap(tower: nn.Module, mixer: Mixer, *, steps: int, size: int, log: Log) -> None:
    """Windows against captions of what sounds in them."""

    def batch(_: int) -> tuple[Tensor, Tensor]:
        chosen = [heard(mixer.rng) for _ in range(size)]
        windows = torch.from_numpy(np.stack([mixer.window(c) for c in chosen]))
        return tower(windows), _labels(chosen)

    _train(tower, batch, steps=steps, rate=2e-3, log=log)


def train_clip(
    tower: nn.Module, pool: Pool, rng: np.random.Generator, *, steps: int, size: int, log: Log
) -> None:
    """Frames, whole or cropped around a random place, against captions of what they show."""

    def batch(_: int) -> tuple[Tensor, Tensor]:
        drawn = draw(pool, rng, size)
        frames, labels = _zoom(drawn.frames, drawn.regions, rng)
        return tower(tower.preprocess(frames)), labels

    _train(tower, batch, steps=steps, rate=2e-3, log=log)


def _train(
    tower: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor]],
    *,
    steps: int,
    rate: float,
    log: Log,
) -> None:
    captions = Captions(tower.config.embed_dim)
    tower.train()

    def losses(step: int) -> dict[str, Tensor]:
        embeddings, labels = batch(step)
        logits = captions(embeddings)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        exact = ((logits > 0) == (labels > 0)).all(1).float().mean()
        return {"loss": loss, "all_captions_right": exact}

    fit(groups((trainable(tower, captions), rate)), losses, steps=steps, log=log)
    tower.eval()


def _labels(chosen: list[tuple[int, ...]]) -> Tensor:
    labels = torch.zeros(len(chosen), CATEGORY_COUNT)
    for row, categories in enumerate(chosen):
        labels[row, list(categories)] = 1.0
    return labels


def _zoom(frames: Tensor, regions: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Crop the batch to one random square, enlarge it, and say which categories are left."""
    side = frames.shape[-1]
    kept = int(rng.integers(side * 3 // 8, side + 1)) if rng.random() < 0.7 else side
    top, left = rng.integers(side - kept + 1, size=2)
    window = (..., slice(top, top + kept), slice(left, left + kept))
    whole = regions.sum((2, 3)).clamp(min=1)
    share = regions[window].sum((2, 3)) / whole
    labels = ((share > 0.5) & (whole > 40)).float()
    cropped = frames[window].float()
    enlarged = F.interpolate(cropped, (side, side), mode="bilinear", align_corners=False)
    return enlarged.round().to(torch.uint8), labels
