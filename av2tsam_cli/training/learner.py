"""The network, its optimiser and the gradient of one batch, on one or several processes."""

import math
from collections.abc import Sequence
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
from av2tsam_cli.inference.distributed import sum_over_processes
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.training.losses import batch_loss
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.start import freeze_untrained, set_gradient_checkpointing

if TYPE_CHECKING:
    from lightning_fabric.fabric import Fabric


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
        self._model, self._optimiser = fabric.setup(MaskLogits(network), self.optimiser)

    def set_learning_rate(self, lr: float) -> None:
        """Set the learning rate of the following steps."""
        for group in self._optimiser.param_groups:
            group["lr"] = lr

    def compute_gradient(
        self, batch: Sequence[Clip], samples: Sequence[Sample]
    ) -> tuple[float, float]:
        """Compute the gradient of a batch, accumulated over parts and summed over processes.

        Args:
            batch: The videos of all processes.
            samples: This process's share of them, or any video if its share is empty: processes
                that exchange gradients must all take part.

        Returns:
            The mean loss of the whole batch, and the L2 norm of its gradient before clipping.
        """
        fabric, processes = self.fabric, self.fabric.world_size
        has_shard = len(shard(batch, fabric.global_rank, processes)) > 0
        frames = sum(len(clip.labelled) for clip in batch)
        total = torch.zeros((), device=fabric.device)
        self._optimiser.zero_grad()
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
            total += loss.detach()
        return float(sum_over_processes(fabric, total)), self._clip_gradient()

    def _clip_gradient(self) -> float:
        norm = self.fabric.clip_gradients(
            self._model,
            self._optimiser,
            max_norm=self.options.clip_norm or math.inf,
            error_if_nonfinite=False,
        )
        return float(norm if norm is not None else math.nan)

    def update(self) -> None:
        """Take one optimiser step along the computed gradient."""
        self._optimiser.step()
