"""What a training reports while it runs: rows of numbers, and a callback that receives them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepRow:
    """One optimiser step: a row of `steps.csv`."""

    step: int
    """Counted from 1 over the whole run."""
    epoch: int
    """Counted from 1."""
    loss: float
    """Mean over the frames of the batch."""
    lr: float
    """Learning rate."""
    grad_norm: float
    """L2 norm of the gradient before clipping."""


@dataclass(frozen=True)
class EpochRow:
    """One epoch, or the part of it before `max_steps`: a row of `epochs.csv`."""

    epoch: int
    """Counted from 1."""
    step: int
    """Optimiser steps so far."""
    lr: float
    """Learning rate."""
    loss: float
    """Mean over the batches of the epoch."""
    train_miou: float
    """mIoU of the training batches, as predicted for their losses; mean over the epoch's videos."""
    train_f_score: float
    """F-score of the same predictions."""
    val_loss: float
    """Loss on the validation split before the silence gate, mean over frames."""
    val_miou: float
    """mIoU on the validation split, 0 to 1."""
    val_f_score: float
    """F-score on the validation split by AVSBench's protocol, 0 to 1."""
    clips_per_s: float
    """Training videos per second, reading included."""
    train_s: float
    """Seconds of training."""
    val_s: float
    """Seconds of validation."""
    complete: bool
    """Whether all batches of the epoch were trained, not only those before `max_steps`."""
    best: bool
    """Whether its mIoU is higher than in all earlier epochs. Part of an epoch is the best only if
    no epoch is complete."""


class TrainingCallback:
    """Called as a training proceeds, in the process of rank 0 only. Override what you need."""

    def on_embedding(self, done: int, total: int) -> None:
        """Receive the number of videos embedded so far, out of those missing from the cache."""

    def on_epoch_start(self, epoch: int, epochs: int, videos: int) -> None:
        """Receive the number of the epoch, from 1, and the number of training videos."""

    def on_step(self, row: StepRow, videos: int) -> None:
        """Receive the numbers of a step, and how many videos of the epoch are done."""

    def on_validation(self, done: int, total: int) -> None:
        """Receive the number of validation videos scored so far."""

    def on_test(self, done: int, total: int) -> None:
        """Receive the number of test videos scored so far, at the end of the training."""

    def on_epoch_end(self, row: EpochRow) -> None:
        """Receive the numbers of an epoch, once it is validated and saved."""
