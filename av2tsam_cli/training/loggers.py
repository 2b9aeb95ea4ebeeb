"""Where metrics and pictures go besides the run folder: TensorBoard and Weights & Biases."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from av2tsam_cli.errors import UsageError
from av2tsam_cli.training.callback import EpochRow
from av2tsam_cli.values import UInt8Array

log = logging.getLogger(__name__)


class MetricsLogger(Protocol):
    """What the loop needs of a logger."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record metrics by name at an optimiser step."""

    def log_image(self, name: str, rgb: UInt8Array, step: int) -> None:
        """Record a picture (h, w, 3) by name at an optimiser step."""

    def close(self) -> None:
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
        loggers.append(_TensorBoardLogger(folder, first_step))
    missing = [name for name in ("tensorboard", "matplotlib") if find_spec(name) is None]
    if missing:
        log.warning(
            "not installed: %s; metrics are still written to the CSV files. To install: "
            "pip install 'av2tsam[train]'",
            ", ".join(missing),
        )
    return loggers


def log_epoch(logger: MetricsLogger, row: EpochRow, examples: Mapping[str, UInt8Array]) -> None:
    """Record the numbers of an epoch, and drawings of some validation videos by their names."""
    metrics = {
        "train/epoch_loss": row.loss,
        "train/miou": row.train_miou,
        "train/f_score": row.train_f_score,
        "train/clips_per_s": row.clips_per_s,
        "val/loss": row.val_loss,
        "val/miou": row.val_miou,
        "val/f_score": row.val_f_score,
    }
    logger.log_metrics(metrics, row.step)
    for name, picture in examples.items():
        logger.log_image(f"val/{name}", picture, row.step)


class _TensorBoardLogger:
    """TensorBoard files in the run folder. If they cannot be written, training goes on without."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self.folder = folder / "tensorboard"
        self.failed = False
        self.logger = TensorBoardLogger(
            folder, name="tensorboard", version="", purge_step=first_step
        )

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        with self._writing():
            for name, value in metrics.items():
                self.logger.experiment.add_scalar(name, value, step)

    def log_image(self, name: str, rgb: UInt8Array, step: int) -> None:
        with self._writing():
            self.logger.experiment.add_image(name, rgb, step, dataformats="HWC")

    def close(self) -> None:
        with self._writing():
            self.logger.finalize("success")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Report the first error of TensorBoard's thread, which every later call raises again."""
        try:
            yield
        except OSError as error:
            if not self.failed:
                log.warning("%s: cannot be written (%s)", self.folder, error.strerror)
            self.failed = True


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

    def log_image(self, name: str, rgb: UInt8Array, step: int) -> None:
        import wandb

        self.run.log({name: wandb.Image(rgb)}, step=step)

    def close(self) -> None:
        self.run.finish()
