"""Where metrics go besides the CSV files: TensorBoard, Weights & Biases, and `curves.png`."""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from av2tsam_cli.errors import UsageError
from av2tsam_cli.training.callback import EpochRow, StepRow

log = logging.getLogger(__name__)


class MetricsLogger(Protocol):
    """The part of `lightning_fabric.loggers.Logger` that the loop uses."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics by name at an optimiser step."""

    def finalize(self, status: str) -> None:
        """Write everything and close."""


def check_wandb(*, wanted: bool) -> None:
    """Check that Weights & Biases is installed if it is wanted.

    Raises:
        UsageError: It is not.
    """
    if wanted and find_spec("wandb") is None:
        raise UsageError("`wandb`: the package is not installed; run 'pip install wandb'")


def open_loggers(
    folder: Path, options: Mapping[str, Any], *, wandb: bool, first_step: int
) -> list[MetricsLogger]:
    """Open TensorBoard if it is installed, and Weights & Biases if it is wanted.

    Args:
        folder: The run folder.
        options: The run's options, shown by Weights & Biases.
        wandb: Whether to report to Weights & Biases.
        first_step: The next step; TensorBoard hides what an interrupted run logged from there on.

    Raises:
        UsageError: Weights & Biases has no login or no network. Nothing is written.
    """
    loggers: list[MetricsLogger] = [_WandbLogger(folder, options)] if wandb else []
    if find_spec("tensorboard") is not None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        tensorboard = TensorBoardLogger(
            folder, name="tensorboard", version="", purge_step=first_step
        )
        loggers.append(tensorboard)
    missing = [name for name in ("tensorboard", "matplotlib") if find_spec(name) is None]
    if missing:
        log.warning(
            "not installed: %s; metrics are still written to the CSV files. To install: "
            "pip install 'av2tsam[train]'",
            ", ".join(missing),
        )
    return loggers


class _WandbLogger:
    """A Weights & Biases run, in the project `$WANDB_PROJECT`, by default `av2tsam`."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        import wandb

        try:
            self.run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "av2tsam"),
                name=folder.name,
                dir=str(folder),
                config=dict(options),
            )
        except wandb.Error as error:
            raise UsageError(
                f"`wandb`: {error}; run 'wandb login', set WANDB_MODE=offline, or omit the option"
            ) from error

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        del status
        self.run.finish()


def draw_curves(epochs: Sequence[EpochRow], steps: Sequence[StepRow]) -> bytes | None:
    """Plot loss and validation scores as a PNG; return None if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    figure = Figure(figsize=(7, 7), layout="constrained")
    loss, scores = figure.subplots(2)
    loss.plot([row.step for row in steps], [row.loss for row in steps], alpha=0.5, label="step")
    loss.plot([row.step for row in epochs], [row.loss for row in epochs], "o-", label="epoch mean")
    loss.set(xlabel="step", ylabel="training loss")
    numbers = [row.epoch for row in epochs]
    scores.plot(numbers, [row.val_miou for row in epochs], "o-", label="mIoU")
    scores.plot(numbers, [row.val_f_score for row in epochs], "o-", label="F-score")
    scores.set(xlabel="epoch", ylabel="validation score")
    scores.xaxis.get_major_locator().set_params(integer=True)
    for axes in (loss, scores):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()
