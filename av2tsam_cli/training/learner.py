"""The network, its optimiser and the gradient of one batch, on one or several processes."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.data.samples import (
    SamInput,
    Sample,
    best_logits,
    collate,
    shard,
    split_evenly,
)
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.evaluation.scoring import score_video, silent_frames, suppress
from av2tsam_cli.inference.distributed import FABRIC_PRECISION, sum_over_processes
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.average import WeightAverage
from av2tsam_cli.training.losses import batch_loss
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.start import freeze_untrained, set_gradient_checkpointing

if TYPE_CHECKING:
    from lightning_fabric.fabric import Fabric


@dataclass(frozen=True)
class BatchResult:
    """The numbers of one batch, over all processes."""

    loss: float
    """Mean over the frames."""
    miou: float
    """Mean over the videos, with empty masks in silent seconds as in validation."""
    f_score: float
    """Mean over the videos, of the same masks."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""


class MaskLogits(nn.Module):
    """The network as Fabric wraps it: tensors in, logits of the best masks out."""

    def __init__(self, network: Av2tSam) -> None:
        super().__init__()
        self.network = network

    def forward(self, sam: SamInput, beit: Tensor, clip: Tensor, clap: Tensor) -> Tensor:
        """Return logits (N, 1, h, w); arguments as in `samples.NetworkInputs`."""
        return best_logits(self.network, sam, beit, clip, clap)


class Learner:
    """The trained part of a network and its optimiser.

    Attributes:
        network: The network, on the process's device.
        parameters: Names and parameters that are trained, in the optimiser's order.
        optimiser: AdamW over these parameters.
        average: The average of these parameters; None without `ema`.
    """

    def __init__(self, network: Av2tSam, options: TrainOptions, fabric: "Fabric") -> None:
        self.network = network
        self.options = options
        self.fabric = fabric
        self.parameters = freeze_untrained(network)
        set_gradient_checkpointing(network, options.gradient_checkpointing)
        self.optimiser = torch.optim.AdamW(
            [p for _, p in self.parameters], lr=options.lr, weight_decay=options.weight_decay
        )
        self.average = WeightAverage(self.parameters, options.ema) if options.ema else None
        self._model, self._optimiser = fabric.setup(MaskLogits(network), self.optimiser)

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate of the following steps."""
        for group in self._optimiser.param_groups:
            group["lr"] = lr

    def compute_gradient(self, batch: Sequence[Clip], samples: Sequence[Sample]) -> BatchResult:
        """Compute the gradient of a batch, accumulated over parts and summed over processes.

        Args:
            batch: The videos of all processes.
            samples: This process's share of them, or any video if its share is empty: processes
                that exchange gradients must all take part.
        """
        fabric, processes = self.fabric, self.fabric.world_size
        has_shard = len(shard(batch, fabric.global_rank, processes)) > 0
        frames = sum(len(clip.labelled) for clip in batch)
        totals = torch.zeros(3, device=fabric.device)
        self._optimiser.zero_grad()
        if self.options.augment:
            samples = [self._embed_again(sample) for sample in samples]
        parts = split_evenly(samples, self.options.accumulate)
        for number, part in enumerate(parts, 1):
            weight = has_shard * sum(len(sample.masks) for sample in part) / frames
            inputs = collate(self.network.config, part, fabric.device)
            with fabric.no_backward_sync(self._model, enabled=number < len(parts)):
                logits = self._model(inputs.sam, inputs.beit, inputs.clip, inputs.clap)
                masks = [sample.masks for sample in part]
                loss = batch_loss(self.network.text_sam.resize, logits, masks) * weight
                # Fabric averages gradients over processes; multiplying makes it their sum.
                fabric.backward(loss * processes)
            totals[0] += loss.detach()
            if has_shard:
                totals[1:] += self._score(part, logits.detach()) / len(batch)
        loss_mean, miou, f_score = sum_over_processes(fabric, totals).tolist()
        return BatchResult(loss_mean, miou, f_score, grad_norm=self._clip_gradient())

    def check_finite(
        self, batch: Sequence[Clip], result: BatchResult, step: int, epoch: int
    ) -> None:
        """Stop before a step that would ruin the weights.

        With fp16, a gradient that is not finite only means that the loss was scaled too much: the
        step is skipped and the scale reduced.

        Args:
            batch: The videos of all processes.
            result: The numbers of the batch.
            step: Number of the step, from 1.
            epoch: Number of the epoch, from 1.

        Raises:
            Av2tsamError: The loss or the gradient is not finite.
        """
        is_scaled = self.fabric.strategy.precision.precision == FABRIC_PRECISION["fp16"]
        values = {"loss": result.loss, "gradient": 0.0 if is_scaled else result.grad_norm}
        for name, value in values.items():
            if not math.isfinite(value):
                names = ", ".join(clip.name for clip in batch)
                raise Av2tsamError(
                    f"{self.options.out}: the {name} is {value} at step {step}, epoch {epoch}, in "
                    f"a batch of the videos {names}; check these videos, lower `lr`, set "
                    "`clip_norm` to 1 or `precision` to fp32"
                )

    def _score(self, samples: Sequence[Sample], logits: Tensor) -> Tensor:
        """Return the sums over videos of mIoU and F-score, given their logits (N, 1, h, w)."""
        sums = logits.new_zeros(2, dtype=torch.float32)
        sizes = [len(sample.masks) for sample in samples]
        for sample, own in zip(samples, torch.split(logits.float(), sizes), strict=True):
            height, width = sample.masks.shape[1:]
            resized = self.network.text_sam.resize(own, (height, width))[:, 0]
            score = score_video(sample, suppress(resized, silent_frames(sample)))
            sums += torch.tensor([score.miou, score.f_score]).to(sums)
        return sums

    def _embed_again(self, sample: Sample) -> Sample:
        """Compute the CLIP embeddings of a sample's frames, which were changed since."""
        with torch.no_grad():
            clip = self.network.embed_frames(sample.frames.to(self.fabric.device)).float()
        return replace(sample, embeddings=sample.embeddings._replace(clip=clip))

    def _clip_gradient(self) -> float:
        norm = self.fabric.clip_gradients(
            self._model,
            self._optimiser,
            max_norm=self.options.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        return float(norm if norm is not None else math.nan)

    def update(self) -> None:
        """Take one optimiser step along the computed gradient, and update the average."""
        self._optimiser.step()
        if self.average is not None:
            self.average.update()

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Run a block with the averaged weights in the network, if `ema` is set."""
        return nullcontext() if self.average is None else self.average.applied()
