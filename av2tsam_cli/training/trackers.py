"""Where numbers go besides the CSV files: TensorBoard and Weights & Biases, where installed."""

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from av2tsam_cli.errors import UsageError

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Takes named numbers."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Remember the values at a step of the optimiser."""

    def close(self) -> None:
        """Write what is left."""


def check_wandb(*, wanted: bool) -> None:
    """Refuse a report to a service whose package is not installed.

    Raises:
        UsageError: It was asked for.
    """
    if wanted and find_spec("wandb") is None:
        raise UsageError("--wandb: the package is not installed; pip install wandb")


def open_trackers(
    folder: Path, options: Mapping[str, Any], *, wandb: bool, from_step: int
) -> list[Tracker]:
    """TensorBoard where it is installed, W&B where it was asked for.

    Args:
        folder: The run folder.
        options: Shown beside the run.
        wandb: Whether W&B was asked for.
        from_step: The next step; what a resumed run had logged from there on does not count.

    Raises:
        UsageError: W&B cannot begin, for want of a login or of the network; nothing is written.
    """
    trackers: list[Tracker] = []
    if wandb:
        trackers.append(_Wandb(folder, options))
    if find_spec("tensorboard") is None:
        log.warning("tensorboard is not installed: metrics go to the CSV files only")
    else:
        trackers.append(_TensorBoard(folder / "tensorboard", from_step))
    return trackers


class _TensorBoard:
    """Event files in a folder of their own."""

    def __init__(self, folder: Path, from_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder), purge_step=from_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """One W&B run, in the project `av2tsam` unless `$WANDB_PROJECT` says otherwise."""

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
                f"--wandb: {error}; log in with `wandb login`, set WANDB_MODE=offline, or leave "
                "the option out"
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()
