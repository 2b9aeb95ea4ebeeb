"""Make nano: `python recipes/nano/make.py --out runs/nano`, from seed to safetensors file.

Every stage leaves a file in the run folder; a second start goes on after the last finished one.
With `torchrun --nproc-per-node 2 recipes/nano/make.py` each process takes one core and half of
every batch, which on a busy machine is faster than one process with two threads.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.checkpoint import save_model
from av2tsam_cli.model.config import PRESETS
from safetensors.torch import load_file, save_file
from torch import nn

import audio_visual
import segmenter
import towers
from data import Mixer, Pool, make_bank, make_pool, open_bank, open_pool
from loop import Log
from phrases import WORDS

SEED = 2026
FRAMES = 90_000
SOUNDS_PER_CATEGORY = 250
STEPS = {"clap": 1200, "clip": 800, "encoder": 1900, "text": 950, "shared": 900, "joint": 750}
BATCH = {"clap": 64, "clip": 64, "encoder": 48, "text": 32, "shared": 24, "joint": 32}
"""Frames (or windows) of a step, over all processes."""


class Recipe:
    """The stages in order, each resumed from its file where there is one."""

    def __init__(self, out: Path, scale: float) -> None:
        self.out = out
        self.scale = scale
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(SEED)
        self.network = build(replace(PRESETS["nano"], words=WORDS))
        # Convolutions of oneDNN are faster with channels last.
        self.network.to(memory_format=torch.channels_last)
        self.category_map = segmenter.CategoryMap(PRESETS["nano"].sam.decoder_dim)

    def stage(self, name: str, part: nn.Module, train: Callable[..., None]) -> None:
        """Run `train(steps=…, size=…, log=…)` unless its result is there already."""
        path = self.out / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(SEED + self.rank)
            log = Log(self.out / "log.jsonl", name, loud=self.rank == 0)
            steps = max(1, round(STEPS[name] * self.scale))
            train(steps=steps, size=BATCH[name] // self.world, log=log)
            if self.rank == 0:
                save_file({k: v.contiguous() for k, v in part.state_dict().items()}, path)
            self.wait()
        part.load_state_dict(load_file(path))
        part.requires_grad_(requires_grad=False).eval()

    def wait(self) -> None:
        """Let the processes meet."""
        if self.world > 1:
            dist.barrier()

    def rng(self, stage: int) -> np.random.Generator:
        """Each stage and process draws for itself."""
        return np.random.default_rng((SEED, stage, self.rank))

    def data(self) -> tuple[Pool, np.ndarray]:
        """Frames and sounds, made by the first process."""
        folder, bank = self.out / "pool", self.out / "bank.npy"
        if self.rank == 0 and not (self.out / "data.done").exists():
            make_pool(folder, round(FRAMES * min(1.0, self.scale)) // 3 * 3, SEED)
            make_bank(bank, SOUNDS_PER_CATEGORY)
            (self.out / "data.done").touch()
        self.wait()
        return open_pool(folder), open_bank(bank)

    def run(self) -> Av2tSam:
        """From random weights to the whole network."""
        net, categories = self.network, self.category_map
        pool, bank = self.data()
        mixer = Mixer(bank, self.rng(1))
        self.stage("clap", net.clap, lambda **k: towers.train_clap(net.clap, mixer, **k))
        self.stage("clip", net.clip, lambda **k: towers.train_clip(net.clip, pool, self.rng(2), **k))
        seeing = nn.ModuleList([net.text_sam.image_encoder, categories])
        self.stage("encoder", seeing, lambda **k: segmenter.train_encoder(*seeing, pool, self.rng(3), **k))
        told = nn.ModuleList([net.text_sam, categories])
        beit = lambda frames: net.prepare(frames)[1]  # noqa: E731
        self.stage("text", told, lambda **k: segmenter.train_text(*told, beit, pool, self.rng(4), **k))
        mixer = Mixer(bank, np.random.default_rng((SEED, 5)))
        heard = audio_visual.hear(net.clap, mixer, alone=round(300 * min(1, self.scale)) + 1, together=round(80 * min(1, self.scale)) + 1)
        whole = nn.ModuleList([net, categories])
        self.stage("shared", whole, lambda **k: audio_visual.train_shared(*whole, pool, heard, self.rng(6), rate=6e-4, encoder_rate=4e-4, **k))
        self.stage("joint", net, lambda **k: audio_visual.train_joint(net, pool, heard, self.rng(7), rate=4e-4, **k))
        return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps, to try it out")
    args = parser.parse_args()
    if dist.is_torchelastic_launched():
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(args.out, args.scale)
    network = recipe.run()
    if recipe.rank == 0:
        save_model(network, args.out / "nano.safetensors", {}, dtype=torch.float16)


if __name__ == "__main__":
    main()
