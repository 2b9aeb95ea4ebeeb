"""`curves.png`, with and without matplotlib."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from av2tsam_cli.training.callback import StepRow
from av2tsam_cli.training.curves import draw_curves, smoothed
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.run_folder import RunFolder

from .rows import ROW

STEPS = [StepRow(step=n, epoch=1, loss=1 / n, lr=1e-3, grad_norm=1.0) for n in (1, 2, 3)]


def test_run_folder_contains_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = RunFolder(tmp_path)
    folder.start(TrainOptions(out=tmp_path), {})
    for row in STEPS:
        folder.add_step(row)
    folder.write_epochs([ROW, replace(ROW, epoch=2, step=6, best=False)])
    assert folder.read_steps() == STEPS
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert image is not None
    assert image.std() > 0


def test_there_are_no_curves_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_curves("run", [ROW], STEPS) is None


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_smoothed_is_the_mean_of_the_values_around(window: int) -> None:
    values = np.random.default_rng(0).random(9)
    half = window // 2
    expected = [values[max(0, k - half) : k + half + 1].mean() for k in range(len(values))]
    assert smoothed(values, window) == pytest.approx(np.array(expected))
