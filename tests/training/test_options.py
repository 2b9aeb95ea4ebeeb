"""Training options: defaults, validation, schedule and JSON."""

from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.training.options import TrainOptions

RUN = Path("run")


def test_defaults_are_those_of_the_reference() -> None:
    options = TrainOptions(out=RUN)
    assert (options.epochs, options.batch_size, options.seed) == (40, 8, 123)
    assert options.weight_decay == torch.optim.AdamW([torch.zeros(1)]).defaults["weight_decay"]
    assert [options.learning_rate(epoch, step=0) for epoch in (0, 20, 40)] == pytest.approx(
        [2e-4, (2e-4 + 1e-7) / 2, 1e-7]
    )


def test_schedule_is_torch_cosine_annealing_per_epoch() -> None:
    options = TrainOptions(out=RUN)
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=options.lr)
    schedule = CosineAnnealingLR(optimiser, options.epochs, eta_min=options.min_lr)
    for epoch in range(options.epochs):
        assert options.learning_rate(epoch, step=epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "`epochs` must be 1 or more"),
        ({"max_steps": 0}, "`max_steps` must be 1 or more"),
        ({"train_clips": -1}, "`train_clips` must be 1 or more"),
        ({"lr": 0.0}, "`lr` must be"),
        ({"lr": float("nan")}, "`lr` must be"),
        ({"min_lr": 1.0}, "`min_lr` must be"),
        ({"clip_norm": 0.0}, "`clip_norm` must be"),
        ({"weight_decay": -0.1}, "`weight_decay` must be 0 or more"),
        ({"weight_decay": float("inf")}, "`weight_decay` must be 0 or more"),
        ({"warmup": -1}, "`warmup` must be 0 or more"),
        ({"val_every": 0}, "`val_every` must be 1 or more"),
        ({"patience": 0}, "`patience` must be 1 or more"),
        ({"ema": 1.0}, "`ema` must be between 0 and 1"),
        ({"ema": 0.0}, "`ema` must be between 0 and 1"),
        ({"augment": True, "cache_features": True}, "`augment`"),
        ({"subset": "s5"}, "subset"),
        ({"resume": True, "overwrite": True}, "`overwrite`"),
        ({"adapter": True, "cache_features": True}, "`adapter`"),
    ],
)
def test_invalid_values_are_usage_errors(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainOptions(out=RUN, **values)  # type: ignore[arg-type]


def test_options_survive_json() -> None:
    options = TrainOptions(out=RUN, data_root=Path("data"), clip_norm=1.0, projector="clap")
    assert TrainOptions.from_json(options.to_json()) == options
    with pytest.raises(MediaError, match="another version"):
        TrainOptions.from_json({"out": "run", "dropout": 0.1})
