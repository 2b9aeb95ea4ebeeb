"""Write a whole checkpoint of a preset with random weights, to measure loading and speed with.

`python benchmarks/random_checkpoint.py evf-sam2 FILE.safetensors [--dtype bfloat16]`
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from av2tsam_cli.model.av2tsam import build_empty
from av2tsam_cli.model.checkpoint import write_tensors
from av2tsam_cli.model.config import PRESETS, ModelConfig

SPREAD = 0.02
"""Standard deviation of the weights: that of most initialisations of transformers."""


def random_state(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """A tensor for every name: what HTSAT calculates is kept, norms are one, the rest is drawn."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, tensor in build_empty(config).state_dict().items():
        if not tensor.is_meta:
            state[name] = tensor
        elif name.endswith("weight") and tensor.ndim == 1:
            state[name] = torch.ones(tensor.shape)
        else:
            state[name] = torch.randn(tensor.shape, generator=generator) * SPREAD
    return state


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=sorted(PRESETS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = PRESETS[options.preset]
    state = random_state(config, options.seed)
    write_tensors(state, options.file, config, dtype=getattr(torch, options.dtype))
    print(f"{options.file}: {sum(t.numel() for t in state.values()) / 1e6:.1f} M values")


if __name__ == "__main__":
    main()
