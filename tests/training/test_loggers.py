"""TensorBoard, with and without the package."""

from pathlib import Path

import numpy as np
import pytest

from av2tsam_cli.training.loggers import log_epoch, open_loggers

from .rows import ROW


def test_missing_packages_are_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("av2tsam_cli.training.loggers.find_spec", lambda _: None)
    assert open_loggers(tmp_path, {}, wandb=False, first_step=1) == []
    (record,) = caplog.records
    assert "not installed: tensorboard, matplotlib" in record.getMessage()


def test_tensorboard_shows_the_numbers_of_an_epoch_and_example_masks(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (logger,) = open_loggers(tmp_path, {}, wandb=False, first_step=1)
    logger.log_metrics({"train/loss": 0.5}, 1)
    log_epoch(logger, ROW, {"dog": np.full((6, 8, 3), 200, np.uint8)})
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    scalars = {tag: events.Scalars(tag)[-1] for tag in events.Tags()["scalars"]}
    assert scalars["train/loss"].value == 0.5
    assert scalars["val/loss"].value == pytest.approx(ROW.val_loss)
    assert scalars["train/miou"].value == pytest.approx(ROW.train_miou)
    assert scalars["val/miou"].step == ROW.step
    (picture,) = events.Images("val/dog")
    assert (picture.width, picture.height, picture.step) == (8, 6, ROW.step)
