"""TensorBoard and `curves.png`, with and without the optional packages."""

import sys
from pathlib import Path

import cv2
import pytest

from av2tsam_cli.training.callback import EpochRow, StepRow
from av2tsam_cli.training.loggers import draw_curves, open_loggers
from av2tsam_cli.training.run_folder import RunFolder

STEPS = [StepRow(step=n, epoch=1, loss=1 / n, lr=1e-3, grad_norm=1.0) for n in (1, 2, 3)]
EPOCHS = [
    EpochRow(
        epoch=1,
        step=3,
        lr=1e-3,
        loss=0.6,
        val_loss=0.8,
        val_miou=0.5,
        val_f_score=0.7,
        clips_per_s=1.0,
        train_s=1.0,
        val_s=1.0,
        complete=True,
        best=True,
    )
]


def test_run_folder_contains_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = RunFolder(tmp_path)
    folder.start({})
    for row in STEPS:
        folder.add_step(row)
    folder.write_epochs(EPOCHS)
    assert folder.read_steps() == STEPS
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert image is not None
    assert image.std() > 0


def test_there_are_no_curves_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert draw_curves(EPOCHS, STEPS) is None


def test_missing_packages_are_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("av2tsam_cli.training.loggers.find_spec", lambda _: None)
    assert open_loggers(tmp_path, {}, wandb=False, first_step=1) == []
    (record,) = caplog.records
    assert "not installed: tensorboard, matplotlib" in record.getMessage()


def test_tensorboard_writes_to_the_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (logger,) = open_loggers(tmp_path, {}, wandb=False, first_step=1)
    logger.log_metrics({"train/loss": 0.5}, 1)
    logger.finalize("success")
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
