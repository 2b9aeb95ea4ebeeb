"""Draw docs/images/timing.png: level, detected changes and mask area of a sample over time.

Run from the repository: `python recipes/samples/timeline.py`. It needs matplotlib.
"""

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from av2tsam import iter_masks, load_model
from av2tsam_cli.inference.segmenter import Segmenter
from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.probe import probe
from av2tsam_cli.segment_options import SILENCE_DBFS, Timing

mpl.use("Agg")
from matplotlib import pyplot as plt

VIDEO = Path("sample_media/relay.mp4")
MASKS = Path("sample_media/relay_masks")
IMAGE = Path("docs/images/timing.png")
RATE = 25
"""Frames per second of the sample."""
LEVEL_S = 0.02
"""Seconds over which the level is measured."""


def main() -> None:
    """Draw the picture."""
    exact = np.array([(cv2.imread(str(path), 0) > 0).mean() for path in sorted(MASKS.iterdir())])
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, (top, bottom) = plt.subplots(2, sharex=True, figsize=(8, 3.6), layout="constrained")
    times, levels, changes = _sound()
    top.plot(times, levels, color="0.45", linewidth=0.8)
    top.set(ylabel="sound level (dBFS)", ylim=(-65, 0))
    for change_s in changes:
        top.axvline(change_s, color="#d6336c", linewidth=1.2)
        bottom.axvline(change_s, color="#d6336c", linewidth=1.2, alpha=0.35)
    bottom.fill_between(np.arange(len(exact)) / RATE, 100 * exact, step="post", color="0.85")
    for timing, style in (("paper", "--"), ("fine", "-")):
        areas = _areas(timing)
        bottom.step(
            np.arange(len(areas)) / RATE, 100 * areas, style, where="post", label=f"timing {timing}"
        )
    bottom.set(xlabel="time (s)", ylabel="mask area (%)", xlim=(0, len(exact) / RATE), ylim=0)
    bottom.legend(loc="upper right", ncols=2, frameon=False)
    figure.savefig(IMAGE, dpi=130)


def _sound() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[float]]:
    """Return times, the level at each, and the times at which the sources are found to change."""
    segmenter = Segmenter(load_model("nano"))
    seconds = [*read_windows(probe(VIDEO), rate_hz=segmenter.rate_hz)]
    samples = np.concatenate([second.samples for second in seconds])
    parts = samples.reshape(-1, round(LEVEL_S * segmenter.rate_hz)).astype(np.float64)
    levels = 10 * np.log10(np.square(parts).mean(axis=1) + 1e-10)
    windows = [*segmenter.hear(iter(seconds), "fine", SILENCE_DBFS)]
    changes = {window.piece: window.start_s for window in reversed(windows) if window.start_s > 0}
    return np.arange(len(levels)) * LEVEL_S, levels, sorted(changes.values())


def _areas(timing: Timing) -> npt.NDArray[np.float64]:
    """Return the share of each frame that its mask covers."""
    return np.array([each.mask.mean() for each in iter_masks(VIDEO, model="nano", timing=timing)])


if __name__ == "__main__":
    main()
