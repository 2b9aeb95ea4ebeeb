"""Stages 2 and 3: train the image encoder on category maps, then SAM on text prompts."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.model.sam import ImageFeatures
from batches import CATEGORY_COUNT, Batch, draw, sam_images, truth
from data import NAMES, Pool
from loop import Log, fit, groups, trainable
from phrases import padded, phrase

BACKGROUND_WEIGHT = 0.25
"""Weight of background cells. Most of a frame is background; a weight of 1 slows training down."""


class CategoryMap(nn.Module):
    """A linear classifier of the image features: the category that covers each cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(width, CATEGORY_COUNT + 1, 1)

    def forward(self, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy with each cell's category shares, and the accuracy on objects.

        Args:
            features: (N, width, g, g).
            batch: The frames of the features.
        """
        cell = batch.regions.shape[-1] // features.shape[-1]
        shares = F.avg_pool2d(batch.regions.float(), cell)
        shares = torch.cat([shares, 1 - shares.sum(1, keepdim=True)], 1)
        weights = 1 - (1 - BACKGROUND_WEIGHT) * shares[:, -1]
        logits = self.read(features)
        entropy = F.cross_entropy(logits, shares, reduction="none")
        objects = shares[:, :-1].amax(1) > 0.5
        right = logits.argmax(1) == shares.argmax(1)
        accuracy = (right & objects).sum() / objects.sum().clamp(min=1)
        return (entropy * weights).sum() / weights.sum(), accuracy


def train_encoder(
    encoder: nn.Module,
    category_map: CategoryMap,
    pool: Pool,
    rng: np.random.Generator,
    *,
    steps: int,
    size: int,
    log: Log,
) -> None:
    """Train SAM's image encoder alone, from random weights."""
    encoder.train()

    def losses(_: int) -> dict[str, Tensor]:
        batch = draw(pool, rng, size)
        *_, features = encoder(sam_images(batch.frames))
        loss, accuracy = category_map(features, batch)
        return {"loss": loss, "object_accuracy": accuracy}

    rate = groups((trainable(encoder, category_map), 1.5e-3))
    fit(rate, losses, steps=steps, log=log, end=0.1, mixed=True)


class Alignment(nn.Module):
    """Contrastive loss between prompts and image features.

    The mask decoder learns several times faster to find the cells of a prompt if their dot product
    with it is already large.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(width**-0.5))
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def forward(self, features: Tensor, prompts: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the products; object cells have ten times the weight.

        Args:
            features: Features of each prompt's image, (P, C, g, g).
            prompts: (P, 1, C).
            target: (P, 1, h, w) in [0, 1].
        """
        share = F.avg_pool2d(target, target.shape[-1] // features.shape[-1])[:, 0]
        products = torch.einsum("pchw,pc->phw", features, prompts[:, 0])
        logits = self.scale * products + self.bias
        return F.binary_cross_entropy_with_logits(logits, share, weight=1 + 9 * share)


def draw_text_queries(
    batch: Batch, rng: np.random.Generator, per_frame: int
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Draw text prompts for each frame: visible objects, pairs, and absent objects."""
    owners, wanted = [], []
    for frame, present in enumerate(batch.present):
        seen, unseen = np.flatnonzero(present), np.flatnonzero(~present)
        for _ in range(per_frame):
            owners.append(frame)
            wanted.append(_draw_query(seen, unseen, rng))
    return np.array(owners), wanted


def _draw_query(seen: np.ndarray, unseen: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    kind = rng.choice(4, p=(0.60, 0.15, 0.18, 0.07))
    if kind == 0 and len(seen):
        return (int(rng.choice(seen)),)
    if kind == 1 and len(seen) > 1:
        return tuple(int(c) for c in rng.choice(seen, 2, replace=False))
    if kind == 2 or not len(seen):
        return (int(rng.choice(unseen)),)
    return (int(rng.choice(seen)), int(rng.choice(unseen)))


def prediction_losses(logits: Tensor, iou: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Return the losses of all four masks and of their predicted IoU.

    Args:
        logits: (P, 4, h, w).
        iou: Predicted, (P, 4).
        target: (P, 1, h, w) in [0, 1].
    """
    target = target.expand_as(logits)
    probability = torch.sigmoid(logits)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
    overlap = (probability * target).sum((2, 3))
    total = (probability + target).sum((2, 3))
    # Smoothing by a constant on both sides rewards an empty prediction for an empty mask.
    dice = 1 - (2 * overlap + 8) / (total + 8)
    soft_iou = 1 - (overlap + 8) / (total - overlap + 8)
    with torch.no_grad():
        hard, real = logits > 0, target > 0.5
        inter, union = (hard & real).sum((2, 3)), (hard | real).sum((2, 3))
        measured = torch.where(union > 0, inter / union.clamp(min=1), 1.0)
    iou_error = F.mse_loss(iou.float(), measured)
    loss = 5 * cross_entropy + dice.mean() + 0.5 * soft_iou.mean() + 0.2 * iou_error
    positive = real.any(3).any(2)[:, 0]
    best = measured[:, 1:].gather(1, iou[:, 1:].argmax(1, keepdim=True))[:, 0]
    seen = (best * positive).sum() / positive.sum().clamp(min=1)
    false = (hard[:, 1].flatten(1).float().mean(1) * ~positive).sum() / (~positive).sum().clamp(
        min=1
    )
    return {"loss": loss, "iou_positive": seen, "area_when_absent": false}


def text_prediction(
    text_sam: nn.Module,
    features: ImageFeatures,
    beit_images: Tensor,
    batch: Batch,
    rng: np.random.Generator,
    *,
    per_frame: int,
    alignment: Alignment | None = None,
) -> dict[str, Tensor]:
    """Return the losses of text prompts on every frame."""
    owners, wanted = draw_text_queries(batch, rng, per_frame)
    ids, padding = padded([phrase([NAMES[c] for c in w], rng) for w in wanted])
    rows = torch.from_numpy(owners)
    tokens = text_sam.beit3.embed_text(ids)
    prompts = text_sam.encode_prompt(beit_images[rows], tokens, padding)
    return prompt_losses(
        text_sam, features.select(rows), prompts, truth(batch, owners, wanted), alignment
    )


def prompt_losses(
    text_sam: nn.Module,
    features: ImageFeatures,
    prompts: Tensor,
    target: Tensor,
    alignment: Alignment | None = None,
) -> dict[str, Tensor]:
    """Return the losses of the masks of P prompts and, with `alignment`, of the prompts."""
    prediction = text_sam.decode(features, prompts)
    values = prediction_losses(prediction.logits, prediction.iou, target)
    if alignment is not None:
        values["aligned"] = alignment(features.embedding, prompts, target)
        values["loss"] = values["loss"] + 0.5 * values["aligned"]
    return values


def train_text(
    network: Av2tSam,
    category_map: CategoryMap,
    pool: Pool,
    rng: np.random.Generator,
    *,
    rate: float,
    steps: int,
    size: int,
    log: Log,
) -> None:
    """Train the whole text-prompted SAM; the encoder with half the rate and its own loss."""
    text_sam = network.text_sam
    text_sam.train()
    alignment = Alignment(category_map.read.in_channels)

    def losses(_: int) -> dict[str, Tensor]:
        batch = draw(pool, rng, size)
        features = text_sam.encode_image(sam_images(batch.frames))
        category_loss, accuracy = category_map(features.embedding, batch)
        beit_images = network.prepare(batch.frames)[1]
        values = text_prediction(
            text_sam, features, beit_images, batch, rng, per_frame=4, alignment=alignment
        )
        values["loss"] = values["loss"] + 0.5 * category_loss
        return {**values, "object_accuracy": accuracy}

    encoder = trainable(text_sam.image_encoder, category_map)
    rest = trainable(*prompted(text_sam), alignment)
    fit(groups((encoder, 0.5 * rate), (rest, rate)), losses, steps=steps, log=log, mixed=True)


def prompted(text_sam: nn.Module) -> tuple[nn.Module, ...]:
    """Return the parts of the text-prompted SAM after the image encoder."""
    no_mask = text_sam.prompt_encoder.no_mask_embed
    return (text_sam.beit3, text_sam.text_hidden_fcs, text_sam.mask_decoder, no_mask)
