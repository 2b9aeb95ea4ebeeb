"""The outcome of a training."""

from dataclasses import dataclass
from pathlib import Path

from av2tsam_cli.training.callback import EpochRow


@dataclass(frozen=True)
class FinalScores:
    """Scores of the best epoch on a split that took no part in the training."""

    split: str
    """Name of the split."""
    videos: int
    """Number of its videos."""
    miou: float
    """mIoU, 0 to 1."""
    f_score: float
    """F-score, 0 to 1."""
    epoch: int
    """Number of the best epoch, from 1."""
    protocol: str
    """The rules by which it was scored, as in `evaluate`."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training."""

    out: Path
    """The run folder."""
    checkpoint: Path
    """The model of the best epoch."""
    best: EpochRow
    """The complete epoch with the highest validation mIoU, or the only, incomplete one."""
    epochs: tuple[EpochRow, ...]
    """All validated epochs."""
    steps: int
    """Optimiser steps."""
    stopped_early: bool
    """Whether `patience` stopped it."""
    test: FinalScores | None = None
    """Scores of `checkpoint` on the test split; None without that split or with `test` off."""
