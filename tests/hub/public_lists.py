"""Names and shapes of the tensors in the published checkpoints, from the lists in `layouts/`."""

import re
from pathlib import Path

import torch
from torch import Tensor

LAYOUTS = Path(__file__).parent / "layouts"


def public_list(name: str) -> dict[str, Tensor]:
    """Return the tensors of a published checkpoint by name, on the meta device."""
    state = {}
    for line in (LAYOUTS / f"{name}.txt").read_text().splitlines():
        template, shape = line.split(" ")
        size = [] if shape == "scalar" else [int(n) for n in shape.split("x")]
        for key in expanded(template):
            state[key.removeprefix("module.")] = torch.empty(size, device="meta")
    return state


def expanded(template: str) -> list[str]:
    """Expand a template: `a.{0-2,5}.b` stands for four names."""
    match = re.search(r"\{(.+)\}", template)
    if match is None:
        return [template]
    numbers: list[int] = []
    for run in match[1].split(","):
        first, _, last = run.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return [template.replace(match[0], str(number)) for number in numbers]
