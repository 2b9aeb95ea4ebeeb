"""Stages 4 and 5: train projector, adapters and decoder on sound.

Stage 4 decodes several prompts, audio and text, from each encoded frame, without adapters. Stage 5
enables the adapters, so every sound needs its own pass through the image encoder.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from batches import CATEGORY_COUNT, Batch, draw, sam_images, truth
from data import Mixer, Pool
from loop import Log, fit, groups, trainable
from segmenter import (
    Alignment,
    CategoryMap,
    prediction_losses,
    prompt_losses,
    prompted,
    text_prediction,
)

Sounds = tuple[int, ...]


@dataclass(frozen=True)
class WindowBank:
    """CLAP embeddings of audio windows, indexed by the categories that sound in them."""

    embeddings: Tensor
    """(M, A)."""
    rows: dict[Sounds, list[int]]
    """Rows of each set of categories, sorted; () is noise alone."""

    def draw(self, sounds: list[Sounds], rng: np.random.Generator) -> Tensor:
        """Return a random window of each set, (len(sounds), A)."""
        picked = [self.rows[tuple(sorted(s))] for s in sounds]
        return self.embeddings[[rows[rng.integers(len(rows))] for rows in picked]]


@torch.no_grad()
def embed_windows(
    clap: nn.Module, mixer: Mixer, *, per_category: int, per_pair: int, per_triple: int
) -> WindowBank:
    """Embed windows of every category, of every pair and triple of categories, and of noise."""
    categories = range(CATEGORY_COUNT)
    sets: list[Sounds] = [(c,) for c in categories for _ in range(per_category)]
    sets += [pair for pair in combinations(categories, 2) for _ in range(per_pair)]
    sets += [triple for triple in combinations(categories, 3) for _ in range(per_triple)]
    sets += [()] * (4 * per_category)
    rows: dict[Sounds, list[int]] = {}
    embedded = []
    for start in range(0, len(sets), 64):
        chunk = sets[start : start + 64]
        windows = torch.from_numpy(np.stack([mixer.window(s) for s in chunk]))
        embedded.append(clap(windows))
        for offset, sounds in enumerate(chunk):
            rows.setdefault(sounds, []).append(start + offset)
    return WindowBank(torch.cat(embedded), rows)


JOINT_SHARES = (0.50, 0.20, 0.07, 0.18, 0.05)
"""Shares of frames paired with one source in view, two or three in view, one in view and one off
screen, one off screen, and noise."""
FINAL_SHARES = (0.38, 0.24, 0.08, 0.17, 0.13)
"""The same for the last stage, with more frames in which nothing should be highlighted."""


def draw_sounds(
    batch: Batch,
    owners: np.ndarray,
    rng: np.random.Generator,
    shares: tuple[float, ...] = JOINT_SHARES,
) -> list[Sounds]:
    """Draw the sounds that each prompt's frame is paired with."""
    return [_sounds(batch.present[owner], rng, shares) for owner in owners]


def _sounds(present: np.ndarray, rng: np.random.Generator, shares: tuple[float, ...]) -> Sounds:
    seen, unseen = np.flatnonzero(present), np.flatnonzero(~present)
    kind = rng.choice(5, p=shares)
    if kind == 4:
        return ()
    if kind == 3 or not len(seen):
        return (int(rng.choice(unseen)),)
    if kind == 2:
        return (int(rng.choice(seen)), int(rng.choice(unseen)))
    count = min(int(rng.choice((2, 3), p=(0.7, 0.3))), len(seen)) if kind == 1 else 1
    return tuple(int(c) for c in rng.choice(seen, count, replace=False))


def train_shared(
    network: nn.Module,
    category_map: CategoryMap,
    pool: Pool,
    windows: WindowBank,
    rng: np.random.Generator,
    *,
    rate: float,
    steps: int,
    size: int,
    log: Log,
) -> None:
    """Stage 4: four sounds and two phrases per encoded frame, without adapters."""
    network.text_sam.train()
    network.projector.train()
    alignment = Alignment(category_map.read.in_channels)

    def losses(_: int) -> dict[str, Tensor]:
        batch = draw(pool, rng, size)
        features = network.text_sam.encode_image(sam_images(batch.frames))
        beit_images = network.prepare(batch.frames)[1]
        words = text_prediction(
            network.text_sam, features, beit_images, batch, rng, per_frame=2, alignment=alignment
        )
        owners = np.repeat(np.arange(size), 4)
        sounds = draw_sounds(batch, owners, rng)
        rows = torch.from_numpy(owners)
        with torch.no_grad():
            seen = network.embed_frames(batch.frames)
        tokens = network.projector(seen[rows], windows.draw(sounds, rng)).tokens
        prompts = network.text_sam.encode_prompt(beit_images[rows], tokens)
        target = truth(batch, owners, sounds)
        values = prompt_losses(network.text_sam, features.select(rows), prompts, target, alignment)
        category_loss, accuracy = category_map(features.embedding, batch)
        return {
            **values,
            "loss": values["loss"] + 0.5 * words["loss"] + 0.3 * category_loss,
            "iou_words": words["iou_positive"],
            "object_accuracy": accuracy,
        }

    segmenter = trainable(*prompted(network.text_sam), alignment)
    fresh = trainable(network.projector)
    encoder = trainable(network.text_sam.image_encoder, category_map)
    pairs = ((segmenter, rate), (fresh, rate), (encoder, 0.4 * rate))
    fit(groups(*pairs), losses, steps=steps, log=log, mixed=True)


def train_joint(
    network: nn.Module,
    pool: Pool,
    windows: WindowBank,
    rng: np.random.Generator,
    *,
    rate: float,
    shares: tuple[float, ...],
    steps: int,
    size: int,
    log: Log,
) -> None:
    """Stage 5: one sound per frame through the adapters; every fourth step trains on text."""
    network.text_sam.train()
    nothing = torch.zeros(())

    def words(batch: Batch) -> dict[str, Tensor]:
        features = network.text_sam.encode_image(sam_images(batch.frames))
        beit_images = network.prepare(batch.frames)[1]
        return text_prediction(network.text_sam, features, beit_images, batch, rng, per_frame=3)

    def sound(batch: Batch) -> dict[str, Tensor]:
        sounds = draw_sounds(batch, np.arange(size), rng, shares)
        with torch.no_grad():
            seen = network.embed_frames(batch.frames)
        prediction = network(*network.prepare(batch.frames), seen, windows.draw(sounds, rng))
        target = truth(batch, np.arange(size), sounds)
        return prediction_losses(prediction.logits, prediction.iou, target)

    def losses(step: int) -> dict[str, Tensor]:
        batch = draw(pool, rng, size)
        if step % 4 == 3:
            return {
                "loss": words(batch)["loss"],
                "iou_positive": nothing,
                "area_when_absent": nothing,
            }
        return sound(batch)

    learning = trainable(
        network.projector, network.text_sam.image_encoder, *prompted(network.text_sam)
    )
    adapters = trainable(network.adapter)
    fit(groups((learning, rate), (adapters, 3 * rate)), losses, steps=steps, log=log, mixed=True)
