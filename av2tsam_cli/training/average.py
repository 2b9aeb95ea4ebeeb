"""The exponential moving average of the trained weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """An exponential moving average of parameters; it starts at their current values.

    Attributes:
        tensors: The averages by the names of the parameters.
    """

    def __init__(self, parameters: Sequence[tuple[str, nn.Parameter]], decay: float) -> None:
        self.parameters = dict(parameters)
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in self.parameters.items()}

    def update(self) -> None:
        """Move the averages towards the parameters: decay * average + (1 - decay) * parameter."""
        for name, parameter in self.parameters.items():
            self.tensors[name].lerp_(parameter.detach(), 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the block with the averages in place of the parameters."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            value = parameter.clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(value)
