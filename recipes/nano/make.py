"""Train nano from scratch: `python recipes/nano/make.py --out runs/nano`.

Each stage writes a file to the run folder. Running the script again resumes after the last finished
stage.

On a CPU, `torchrun --nproc-per-node 2 recipes/nano/make.py` gives each process one core and half of
every batch. Training is twice as fast if glibc keeps freed memory for reuse: set
`MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

import audio_visual
import segmenter
import towers
from av2tsam_cli.hub.checkpoint import save_network
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import PRESETS
from data import NAMES, Mixer, Pool, make_bank, make_pool, open_bank, open_pool
from loop import Log
from phrases import WORDS

SEED = 2026
FRAMES = 90_000
SOUNDS_PER_CATEGORY = 400
STEPS = {
    "encoder": 1400,
    "text": 500,
    "text-again": 450,
    "clip": 3600,
    "clap": 3000,
    "shared": 700,
    "shared-again": 400,
    "joint": 450,
    "joint-again": 600,
}
BATCH = {
    "encoder": 48,
    "text": 32,
    "text-again": 32,
    "clip": 48,
    "clap": 64,
    "shared": 24,
    "shared-again": 24,
    "joint": 32,
    "joint-again": 32,
}
"""Frames (or windows) per step, over all processes."""
WINDOWS = {"per_category": 300, "per_pair": 80, "per_triple": 8}
"""Windows that CLAP embeds for each category alone, and for each pair and triple of categories."""


class Recipe:
    """The stages in order. A stage whose file exists is loaded instead of trained."""

    def __init__(self, out: Path, share: float) -> None:
        self.out = out
        self.share = share
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(SEED)
        self.network = build(
            replace(
                PRESETS["nano"],
                words=WORDS,
                clip=replace(PRESETS["nano"].clip, names=NAMES),
                clap=replace(PRESETS["nano"].clap, names=NAMES),
            )
        )
        # oneDNN's convolutions are faster with channels last.
        self.network.to(memory_format=torch.channels_last)
        self.category_map = segmenter.CategoryMap(PRESETS["nano"].sam.decoder_dim)

    def run(self) -> Av2tSam:
        """Train the whole network, from random weights."""
        net, sam = self.network, self.network.text_sam
        pool, bank = self.data()
        encoder_parts = nn.ModuleList([sam.image_encoder, self.category_map])
        text_parts = nn.ModuleList([sam, self.category_map])
        all_parts = nn.ModuleList([net, self.category_map])
        self.stage(
            "encoder", encoder_parts, segmenter.train_encoder, *encoder_parts, pool, self.rng(3)
        )
        for name, rate, stream in (("text", 1e-3, 4), ("text-again", 8e-4, 11)):
            train = partial(segmenter.train_text, rate=rate)
            self.stage(name, text_parts, train, net, self.category_map, pool, self.rng(stream))
        self.stage("clip", net.clip, towers.train_clip, net.clip, pool, self.rng(2))
        self.stage("clap", net.clap, towers.train_clap, net.clap, Mixer(bank, self.rng(1)))
        if self.rank == 0:
            save_network(net, self.out / "base.safetensors")
        mixer = Mixer(bank, np.random.default_rng((SEED, 5)))  # the same in every process
        counts = {name: self.scaled(count) for name, count in WINDOWS.items()}
        windows = audio_visual.embed_windows(net.clap, mixer, **counts)
        for name, rate, stream in (("shared", 1e-3, 6), ("shared-again", 6e-4, 8)):
            train = partial(audio_visual.train_shared, rate=rate)
            self.stage(name, all_parts, train, *all_parts, pool, windows, self.rng(stream))
        for name, rate, shares, stream in (
            ("joint", 4e-4, audio_visual.JOINT_SHARES, 7),
            ("joint-again", 3e-4, audio_visual.FINAL_SHARES, 9),
        ):
            train = partial(audio_visual.train_joint, rate=rate, shares=shares)
            self.stage(name, net, train, net, pool, windows, self.rng(stream))
        return net

    def data(self) -> tuple[Pool, np.ndarray]:
        """Open the frames and sounds; the first process generates them if they are missing."""
        folder, bank, done = self.out / "pool", self.out / "bank.npy", self.out / "data.done"
        if self.rank == 0 and not done.exists():
            make_pool(folder, FRAMES, SEED)
            make_bank(bank, SOUNDS_PER_CATEGORY)
            done.touch()
        self.wait()
        return open_pool(folder), open_bank(bank)

    def stage(self, name: str, part: nn.Module, train: Callable[..., None], *args: object) -> None:
        """Train `part` unless its file exists, then load the file."""
        path = self.out / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(SEED + self.rank)
            log = Log(self.out / "log.jsonl", name, enabled=self.rank == 0)
            train(*args, steps=self.scaled(STEPS[name]), size=BATCH[name] // self.world, log=log)
            if self.rank == 0:
                save_file({k: v.contiguous() for k, v in part.state_dict().items()}, path)
            self.wait()
        part.load_state_dict(load_file(path))
        part.requires_grad_(requires_grad=False).eval()

    def scaled(self, count: int) -> int:
        """Scale a count by `--share`; the result is at least one."""
        return max(1, round(count * self.share))

    def rng(self, stage: int) -> np.random.Generator:
        """Return the random generator of a stage in this process."""
        return np.random.default_rng((SEED, stage, self.rank))

    def wait(self) -> None:
        """Wait for the other processes."""
        if self.world > 1:
            dist.barrier()


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    parser.add_argument(
        "--share", type=float, default=1.0, help="fraction of the steps to run, for a quick trial"
    )
    args = parser.parse_args()
    if dist.is_torchelastic_launched():
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
    args.out.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(args.out, args.share)
    network = recipe.run()
    if recipe.rank == 0:
        save_network(network, args.out / "nano.safetensors", {}, dtype=torch.float16)


if __name__ == "__main__":
    main()
