"""Draw `curves.png`: losses, scores and learning rate of a run."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from av2tsam_cli.training.callback import EpochRow, StepRow

TRAIN, VAL, BEST = "tab:blue", "tab:orange", "0.35"
"""Colours of training, validation and the best epoch."""
MIN_WINDOW, WINDOWS = 5, 25
"""The step loss is averaged over 1 / WINDOWS of all steps, at least over MIN_WINDOW of them."""
EPOCH_TICKS = 10
"""Upper limit of the epoch numbers along the top."""
EPOCH_STRIDES = [n * 10**power for power in range(6) for n in (1, 2, 5)]
"""Differences between epoch numbers along the top."""


def draw_curves(name: str, epochs: Sequence[EpochRow], steps: Sequence[StepRow]) -> bytes | None:
    """Plot a run as a PNG; return None if matplotlib is not installed.

    Args:
        name: Name of the run, for the title.
        epochs: The validated epochs, at least one.
        steps: All steps.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    figure = Figure(figsize=(8, 8.5), layout="constrained")
    loss, scores, rate = figure.subplots(3, sharex=True, height_ratios=(3, 3, 1.3))
    best = next(row for row in reversed(epochs) if row.best)
    figure.suptitle(
        f"{name}: best epoch {best.epoch}, validation mIoU {best.val_miou:.3f}, "
        f"F {best.val_f_score:.3f}"
    )
    _draw_loss(loss, epochs, steps)
    _draw_scores(scores, epochs)
    rate.step([row.step for row in steps], [row.lr for row in steps], color=TRAIN, where="post")
    rate.set_title("Learning rate", loc="left")
    rate.set(xlabel="step", xlim=(0, None), ylim=(0, None))
    rate.yaxis.set_major_formatter("{x:.0e}")
    for axes in (loss, scores, rate):
        axes.axvline(best.step, color=BEST, linestyle=":", label=f"best epoch ({best.epoch})")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    loss.legend(loc="upper right")
    scores.legend(loc="lower right", ncols=2)
    _label_epochs(loss, steps)
    png = BytesIO()
    figure.savefig(png, format="png", dpi=110)
    return png.getvalue()


def _draw_loss(axes: Any, epochs: Sequence[EpochRow], steps: Sequence[StepRow]) -> None:
    x, y = [row.step for row in steps], np.array([row.loss for row in steps])
    smooth = smoothed(y, max(MIN_WINDOW, len(y) // WINDOWS))
    val = [row.val_loss for row in epochs]
    axes.plot(x, y, color=TRAIN, alpha=0.2, linewidth=0.8, label="training, each step")
    axes.plot(x, smooth, color=TRAIN, label="training, smoothed")
    axes.plot([row.step for row in epochs], val, ".-", color=VAL, label="validation")
    # Single steps far above the curves may leave the picture.
    highest, lowest = max(smooth.max(), *val), min(y.min(), *val)
    margin = 0.05 * (highest - lowest) + 1e-3
    axes.set_title("Loss", loc="left")
    axes.set(ylim=(lowest - margin, highest + 4 * margin))


def _draw_scores(axes: Any, epochs: Sequence[EpochRow]) -> None:
    x = [row.step for row in epochs]
    for split, colour in (("train", TRAIN), ("val", VAL)):
        for column, style, label in (("miou", ".-", "mIoU"), ("f_score", ".--", "F")):
            y = [getattr(row, f"{split}_{column}") for row in epochs]
            title = {"train": "training", "val": "validation"}[split]
            axes.plot(x, y, style, color=colour, label=f"{title} {label}")
    axes.set_title("Scores", loc="left")


def _label_epochs(axes: Any, steps: Sequence[StepRow]) -> None:
    """Write epoch numbers along the top, at the last step of each epoch."""
    ends = {row.epoch: row.step for row in steps}
    stride = next(n for n in EPOCH_STRIDES if len(ends) <= n * EPOCH_TICKS)
    numbers = [number for number in ends if number % stride == 0]
    top = axes.secondary_xaxis("top")
    top.set_xticks([ends[number] for number in numbers], [str(number) for number in numbers])
    top.set_xlabel("epoch", loc="right")


def smoothed(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Return the centred moving average; at the ends, over the values that there are."""
    ones = np.ones(2 * (window // 2) + 1)
    counts = np.convolve(np.ones(len(values)), ones)
    total = np.convolve(values, ones)
    start = len(ones) // 2
    return (total / counts)[start : start + len(values)]
