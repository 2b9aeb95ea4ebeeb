"""Stage 1: the CLAP and the CLIP tower learn from captions of what is heard and seen.

A window or a frame is matched with every caption "the dog", "the bell" …; a caption is true of
it or not, so the loss is the pairwise sigmoid one (Zhai et al., "Sigmoid Loss for Language Image
Pre-Training", 2023), which lets two captions be true at once.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batches import CATEGORY_COUNT, draw
from data import Mixer, Pool
from loop import Log, fit, groups, trainable
from segmenter import CategoryMap


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

    def batch(_: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = [heard(mixer.rng) for _ in range(size)]
        windows = torch.from_numpy(np.stack([mixer.window(c) for c in chosen]))
        return tower(windows), _labels(chosen), torch.zeros(())

    _train(tower, batch, steps=steps, rate=2e-3, log=log)


def train_clip(
    tower: nn.Module, pool: Pool, rng: np.random.Generator, *, steps: int, size: int, log: Log
) -> None:
    """Frames against captions of what they show, and two inner layers against what is where.

    Captions alone leave the tower at chance for as long as anybody waited, even on crops: an
    object is a few hundred pixels among 16,384. Where it is teaches the layers to see it.
    """
    maps = {name: CategoryMap(width) for name, width in INNER.items()}
    inner: dict[str, Tensor] = {}
    hooks = [
        getattr(tower.visual, name).register_forward_hook(partial(_keep, inner, name))
        for name in INNER
    ]

    def batch(_: int) -> tuple[Tensor, Tensor, Tensor]:
        drawn = draw(pool, rng, size)
        embeddings = tower(tower.preprocess(drawn.frames))
        where = sum(maps[name](inner[name], drawn)[0] for name in INNER)
        return embeddings, torch.from_numpy(drawn.present).float(), where / 4

    _train(tower, batch, steps=steps, rate=2e-3, log=log, extra=list(maps.values()))
    for hook in hooks:
        hook.remove()


INNER = {"layer2": 128, "layer3": 256}
"""Layers of the CLIP tower that learn what is where, and their widths."""


def _keep(
    inner: dict[str, Tensor], name: str, _module: nn.Module, _inputs: object, output: Tensor
) -> None:
    inner[name] = output


def _train(
    tower: nn.Module,
    batch: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    *,
    steps: int,
    rate: float,
    log: Log,
    extra: Sequence[nn.Module] = (),
) -> None:
    """`batch(step)` gives embeddings (N, E), captions that are true (N, C), and one more loss."""
    captions = Captions(tower.config.embed_dim)
    tower.train()

    def losses(step: int) -> dict[str, Tensor]:
        embeddings, labels, more = batch(step)
        logits = captions(embeddings)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        exact = ((logits > 0) == (labels > 0)).all(1).float().mean()
        found = ((logits > 0) & (labels > 0)).sum() / labels.sum().clamp(min=1)
        return {"loss": loss + more, "all_captions_right": exact, "captions_found": found}

    fit(groups((trainable(tower, captions, *extra), rate)), losses, steps=steps, log=log)
    tower.eval()


def _labels(chosen: list[tuple[int, ...]]) -> Tensor:
    labels = torch.zeros(len(chosen), CATEGORY_COUNT)
    for row, categories in enumerate(chosen):
        labels[row, list(categories)] = 1.0
    return labels
