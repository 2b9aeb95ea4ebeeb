"""What a training needs to go on where it was, as tensors by name and JSON values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from av2tsam_cli.errors import MediaError, WeightsError
from av2tsam_cli.hub.tensor_file import TensorFile
from av2tsam_cli.model.av2tsam import Av2tSam

MODEL, OPTIMISER, RANDOM = "model:", "optimiser:", "random:"
Learning = Sequence[tuple[str, nn.Parameter]]
"""Names and parameters in the order in which the optimiser has them."""


def pack(network: Av2tSam, optimiser: Optimizer, learning: Learning) -> dict[str, Tensor]:
    """Weights, the optimiser's state, and the states of the random generators."""
    tensors = {MODEL + name: parameter for name, parameter in network.trained_parameters()}
    for name, parameter in learning:
        for key, value in optimiser.state[parameter].items():
            tensors[f"{OPTIMISER}{key}:{name}"] = value
    return {**tensors, **_random_states()}


def unpack(
    tensors: Mapping[str, Tensor], network: Av2tSam, optimiser: Optimizer, learning: Learning
) -> None:
    """Put back what `pack` took."""
    with torch.no_grad():
        for name, parameter in network.trained_parameters():
            parameter.copy_(tensors[MODEL + name])
    stored: dict[int, dict[str, Tensor]] = {}
    places = {name: place for place, (name, _) in enumerate(learning)}
    for key, tensor in tensors.items():
        if key.startswith(OPTIMISER):
            what, name = key.removeprefix(OPTIMISER).split(":")
            stored.setdefault(places[name], {})[what] = tensor
    # The optimiser moves its own state to where the parameters are.
    optimiser.load_state_dict({**optimiser.state_dict(), "state": stored})
    _set_random_states(tensors)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file.

    Raises:
        MediaError: It is missing or damaged.
    """
    try:
        return TensorFile(path).read()
    except WeightsError as error:
        raise MediaError(f"{error}; or start again with `overwrite`") from error


def _random_states() -> dict[str, Tensor]:
    states = {f"{RANDOM}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[f"{RANDOM}cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random_states(tensors: Mapping[str, Any]) -> None:
    torch.set_rng_state(tensors[f"{RANDOM}cpu"])
    if torch.cuda.is_available() and f"{RANDOM}cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{RANDOM}cuda"])
