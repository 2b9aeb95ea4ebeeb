"""Train the CLAP and CLIP towers, and the embeddings of the names in their spaces.

A window or frame is compared with every name. The loss is the pairwise sigmoid loss, because
several names can apply at once (see `NameTable`).
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


def draw_categories(rng: np.random.Generator) -> tuple[int, ...]:
    """Draw the categories that sound in a window: mostly one or two, sometimes none or three."""
    count = int(rng.choice(4, p=(0.08, 0.47, 0.35, 0.10)))
    return tuple(int(c) for c in rng.choice(CATEGORY_COUNT, count, replace=False))


def train_clap(tower: nn.Module, mixer: Mixer, *, steps: int, size: int, log: Log) -> None:
    """Train CLAP on windows and captions of their sound sources."""

    def batch(_: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = [draw_categories(mixer.rng) for _ in range(size)]
        windows = torch.from_numpy(np.stack([mixer.window(c) for c in chosen]))
        return tower(windows), _labels(chosen), torch.zeros(())

    _train(tower, batch, steps=steps, rate=2e-3, log=log)


def train_clip(
    tower: nn.Module, pool: Pool, rng: np.random.Generator, *, steps: int, size: int, log: Log
) -> None:
    """Train CLIP on frames and captions of their objects, and three layers on category maps.

    With captions alone, accuracy stayed at chance level, even on crops: an object covers only a few
    hundred of 16,384 pixels. The category maps provide a local training signal.
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
        return embeddings, torch.from_numpy(drawn.present).float(), where / 6

    _train(tower, batch, steps=steps, rate=2e-3, log=log, extra=list(maps.values()))
    for hook in hooks:
        hook.remove()


INNER = {"layer2": 128, "layer3": 256, "layer4": 512}
"""Layers of the CLIP tower that are trained on category maps too, and their widths."""


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
    """Train a tower; `batch(step)` returns embeddings (N, E), labels (N, C) and another loss."""
    tower.train()

    def losses(step: int) -> dict[str, Tensor]:
        embeddings, labels, more = batch(step)
        logits = tower.names(embeddings)
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        exact = ((logits > 0) == (labels > 0)).all(1).float().mean()
        found = ((logits > 0) & (labels > 0)).sum() / labels.sum().clamp(min=1)
        return {"loss": loss + more, "all_captions_right": exact, "captions_found": found}

    fit(groups((trainable(tower, *extra), rate)), losses, steps=steps, log=log, mixed=True)
    tower.eval()


def _labels(chosen: list[tuple[int, ...]]) -> Tensor:
    labels = torch.zeros(len(chosen), CATEGORY_COUNT)
    for row, categories in enumerate(chosen):
        labels[row, list(categories)] = 1.0
    return labels
