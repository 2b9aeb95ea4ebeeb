"""Add a model card to a scored checkpoint and copy it into the package.

python recipes/nano/score.py runs/nano/nano.safetensors --samples sample_media > scores.json
python recipes/nano/ship.py runs/nano/nano.safetensors scores.json
"""

import argparse
import json
from pathlib import Path

import torch

from av2tsam_cli.hub.checkpoint import load_network, save_network
from av2tsam_cli.synth.dataset import GENERATOR_VERSION
from make import FRAMES, SEED, SOUNDS_PER_CATEGORY, STEPS

TARGET = Path("av2tsam_cli/assets/nano.safetensors")
CARD = {
    "what": "A small, complete AV2T-SAM for trying the tool out, for tests and for experiments.",
    "not_for": "Real footage: it knows sixteen drawn objects and their synthesised sounds.",
    "data": {
        "generator": "av2tsam data synth",
        "generator_version": GENERATOR_VERSION,
        "frames": FRAMES,
        "sounds_per_category": SOUNDS_PER_CATEGORY,
        "seed": SEED,
    },
    "training": {"recipe": "recipes/nano", "steps": STEPS},
    "licence": "Apache-2.0",
}


def main() -> None:
    """Write the packaged file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("scores", type=Path)
    args = parser.parse_args()
    scores = json.loads(args.scores.read_text())
    TARGET.parent.mkdir(exist_ok=True)
    model = load_network(args.model)
    save_network(model, TARGET, {"card": {**CARD, "scores": scores}}, dtype=torch.float16)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
