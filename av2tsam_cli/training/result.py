"""The outcome of a training."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from av2tsam_cli.training.callback import EpochRow
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.state import TrainingState


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

    def record(self) -> dict[str, Any]:
        """Return what `run.json` stores of it, as JSON values."""
        values = asdict(self)
        return {name: values[name] for name in ("best", "steps", "stopped_early", "test")}


def training_result(options: TrainOptions, state: TrainingState) -> TrainResult:
    """Return the outcome of a training that has ended, without the test scores."""
    assert state.best is not None  # noqa: S101 - the last epoch is always validated
    return TrainResult(
        out=options.out,
        checkpoint=options.out / "best.safetensors",
        best=state.best,
        epochs=state.rows,
        steps=state.step,
        stopped_early=state.is_stopped_early(options),
    )
