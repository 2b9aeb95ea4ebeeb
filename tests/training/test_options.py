"""The defaults are the reference's, and what cannot be is refused."""

from pathlib import Path

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.training.options import TrainOptions

RUN = Path("run")


def test_the_defaults_are_those_of_the_reference() -> None:
    options = TrainOptions(out=RUN)
    assert (options.epochs, options.batch_size, options.seed) == (40, 8, 123)
    assert [options.learning_rate(epoch) for epoch in (0, 20, 40)] == pytest.approx(
        [2e-4, (2e-4 + 1e-7) / 2, 1e-7]
    )


def test_the_schedule_is_the_cosine_that_torch_steps_once_an_epoch() -> None:
    options = TrainOptions(out=RUN)
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=options.lr)
    schedule = CosineAnnealingLR(optimiser, options.epochs, eta_min=options.min_lr)
    for epoch in range(options.epochs):
        assert options.learning_rate(epoch) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"max_steps": 0}, "--max-steps 0"),
        ({"train_clips": -1}, "--train-clips -1"),
        ({"lr": 0.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"min_lr": 1.0}, "--min-lr"),
        ({"clip_norm": 0.0}, "--clip-norm"),
        ({"subset": "s5"}, "--subset"),
        ({"resume": True, "overwrite": True}, "--overwrite"),
        ({"adapter": True, "cache_features": True}, "--no-adapter"),
    ],
)
def test_what_cannot_be_is_a_usage_error(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        TrainOptions(out=RUN, **given)  # type: ignore[arg-type]


def test_options_come_back_from_json() -> None:
    options = TrainOptions(out=RUN, data_root=Path("data"), clip_norm=1.0, projector="clap")
    assert TrainOptions.from_json(options.to_json()) == options
    with pytest.raises(MediaError, match="another version"):
        TrainOptions.from_json({"out": "run", "dropout": 0.1})
