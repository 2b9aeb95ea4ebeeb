"""The position of a training in `resume.safetensors`."""

from typing import Any

import pytest

from av2tsam_cli.training.state import TrainingState


def test_a_state_survives_json() -> None:
    state = TrainingState(epoch=1, batch=2, step=5, loss_sum=0.5)
    assert TrainingState.from_json(state.to_json()) == state


@pytest.mark.parametrize(
    "wrong", [{"batch": 1.5}, {"step": "5"}, {"epoch": True}, {"clips": -1}, {"loss_sum": None}]
)
def test_wrong_positions_are_errors(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        TrainingState.from_json({**TrainingState().to_json(), **wrong})
