"""The training loop of all stages."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from av2tsam_cli.inference.device import choose_precision

FAST_BF16 = choose_precision("auto", torch.device("cpu")) == "bf16"
"""Whether this CPU multiplies bfloat16 faster than float32."""


@dataclass
class Log:
    """Running means of a stage's values, printed at intervals and appended as JSON lines."""

    path: Path
    stage: str
    enabled: bool = True
    every: int = 50
    sums: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, step: int, values: dict[str, Tensor]) -> None:
        """Add the values of one step; every `every` steps, print and write their means."""
        if not self.enabled:
            return
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())
        if (step + 1) % self.every == 0:
            self._write(step + 1)

    def _write(self, step: int) -> None:
        means = {name: round(total / self.every, 4) for name, total in self.sums.items()}
        seconds = round(time.perf_counter() - self.started, 1)
        line = json.dumps({"stage": self.stage, "step": step, "seconds": seconds, **means})
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)
        self.sums.clear()


def trainable(*parts: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of these parts, with gradients enabled."""
    parameters = [p for part in parts for p in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def groups(*pairs: tuple[Iterable[nn.Parameter], float]) -> list[dict[str, object]]:
    """Make optimiser groups of (parameters, rate). Vectors and scalars get no weight decay."""
    out: list[dict[str, object]] = []
    for parameters, rate in pairs:
        listed = list(parameters)
        out.append({"params": [p for p in listed if p.ndim > 1], "lr": rate, "weight_decay": 0.05})
        out.append({"params": [p for p in listed if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    return out


def fit(
    parameter_groups: list[dict[str, object]],
    losses: Callable[[int], dict[str, Tensor]],
    *,
    steps: int,
    log: Log,
    end: float = 0.01,
    mixed: bool = False,
) -> None:
    """Minimise `losses(step)["loss"]` with AdamW and a cosine schedule.

    The learning rate falls to `end` times its start value. With `mixed`, bfloat16 autocast is used
    on CPUs that are faster with it.
    """
    optimiser = torch.optim.AdamW(parameter_groups, betas=(0.9, 0.98), foreach=True)
    warmup = min(200, steps // 5)
    full = [group["lr"] for group in optimiser.param_groups]
    for step in range(steps):
        share = _rate(step, steps, warmup, end)
        for group, rate in zip(optimiser.param_groups, full, strict=True):
            group["lr"] = rate * share
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed and FAST_BF16):
            values = losses(step)
        optimiser.zero_grad(set_to_none=True)
        values["loss"].backward()
        _average(optimiser.param_groups)
        _clip(optimiser.param_groups)
        optimiser.step()
        log.add(step, values)


def _average(param_groups: Iterable[dict[str, list[nn.Parameter]]]) -> None:
    """Average the gradients over all processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in _all(param_groups) if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _rate(step: int, steps: int, warmup: int, end: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return end + (1 - end) * 0.5 * (1 + cos(pi * (step - warmup) / max(1, steps - warmup)))


def _clip(param_groups: Iterable[dict[str, list[nn.Parameter]]]) -> None:
    nn.utils.clip_grad_norm_(_all(param_groups), 1.0, error_if_nonfinite=True)


def _all(param_groups: Iterable[dict[str, list[nn.Parameter]]]) -> Iterator[nn.Parameter]:
    for group in param_groups:
        yield from group["params"]
