"""A validated epoch for tests of what reports it."""

from av2tsam_cli.training.callback import EpochRow

ROW = EpochRow(
    epoch=1,
    step=3,
    lr=1e-3,
    loss=0.6,
    train_miou=0.4,
    train_f_score=0.6,
    val_loss=0.8,
    val_miou=0.5,
    val_f_score=0.7,
    clips_per_s=1.0,
    train_s=1.0,
    val_s=1.0,
    complete=True,
    best=True,
)
