"""Write checkpoints of a full-size preset in the public formats, with random weights.

`python benchmarks/random_checkpoint.py evf-sam2 FOLDER [--dtype float16]` writes the reference's
`av2t-sam.pth`, Microsoft's `clap.pth` and OpenAI's `clip.safetensors` with the tensor names of the
public files, to measure conversion, loading and speed.
"""

import argparse
import runpy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from av2tsam_cli.hub.layouts import recognise
from av2tsam_cli.model.av2tsam import build_empty
from av2tsam_cli.model.config import PRESETS, ModelConfig

SPREAD = 0.02
"""Standard deviation of the weights, as in most initialisations of transformers."""
KEY_LISTS = Path(__file__).parents[1] / "tests" / "model" / "public_lists.py"


def public_state(names: Mapping[str, Tensor], config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """Make a tensor for every public name: norms are one, tensors that HTSAT computes are kept."""
    layout = recognise(names)
    assert layout is not None
    generator = torch.Generator().manual_seed(seed)
    ours = build_empty(config).state_dict()
    state: dict[str, Tensor] = {}
    for name, like in names.items():
        rule = layout.rule_for(name)
        calculated = ours.get(rule.rename(name) or "") if rule else None
        if calculated is not None and not calculated.is_meta:
            state[name] = calculated
        elif name.endswith("weight") and like.ndim == 1:
            state[name] = torch.ones(like.shape)
        else:
            state[name] = torch.randn(like.shape, generator=generator) * SPREAD
    return state


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=("evf-sam", "evf-sam2"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config, dtype = PRESETS[options.preset], getattr(torch, options.dtype)
    public_list = runpy.run_path(str(KEY_LISTS))["public_list"]
    options.folder.mkdir(parents=True, exist_ok=True)
    reference = f"av2t_{options.preset.replace('-', '_')}"
    lists = {
        reference: "av2t-sam.pth",
        "microsoft_clap": "clap.pth",
        "openai_clip": "clip.safetensors",
    }
    for name, file in lists.items():
        state = public_state(public_list(name), config, options.seed)
        if name == reference:  # the towers' own files are float32
            state = {key: tensor.to(dtype) for key, tensor in state.items()}
        path = options.folder / file
        if path.suffix == ".pth":
            torch.save({"model": state} if name == "microsoft_clap" else state, path)
        else:
            save_file(state, path)
        print(f"{path}: {sum(t.numel() for t in state.values()) / 1e6:.1f} M values")


if __name__ == "__main__":
    main()
