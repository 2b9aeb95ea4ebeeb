"""Make nano, from seed to safetensors file: `python recipes/nano/make.py --out runs/nano`.

Every stage leaves a file in the run folder; a second start goes on after the last finished one.

On a CPU, `torchrun --nproc-per-node 2 recipes/nano/make.py` gives each process one core and half of
every batch. It is twice as fast when freed memory is kept for reuse; glibc is told so with
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
from data import Mixer, Pool, make_bank, make_pool, open_bank, open_pool
from loop import Log
from phrases import WORDS

SEED = 2026
FRAMES = 90_000
SOUNDS_PER_CATEGORY = 250
STEPS = {
    "encoder": 1500,
    "text": 450,
    "text-again": 400,
    "clip": 2200,
    "clap": 700,
    "clap-again": 500,
    "shared": 700,
    "shared-again": 360,
    "joint": 420,
    "joint-again": 500,
}
BATCH = {
    "encoder": 48,
    "text": 32,
    "text-again": 32,
    "clip": 48,
    "clap": 64,
    "clap-again": 64,
    "shared": 24,
    "shared-again": 24,
    "joint": 32,
    "joint-again": 32,
}
"""Frames (or windows) of a step, over all processes."""
HEARD = {"alone": 300, "together": 80}
"""Windows that CLAP embeds for each category alone and for each pair of them."""


class Recipe:
    """The stages in order, each resumed from its file where there is one."""

    def __init__(self, out: Path, share: float) -> None:
        self.out = out
        self.share = share
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(SEED)
        self.network = build(replace(PRESETS["nano"], words=WORDS))
        # Convolutions of oneDNN are faster with channels last.
        self.network.to(memory_format=torch.channels_last)
        self.category_map = segmenter.CategoryMap(PRESETS["nano"].sam.decoder_dim)

    def run(self) -> Av2tSam:
        """From random weights to the whole network."""
        net, sam = self.network, self.network.text_sam
        pool, bank = self.data()
        seeing = nn.ModuleList([sam.image_encoder, self.category_map])
        told = nn.ModuleList([sam, self.category_map])
        whole = nn.ModuleList([net, self.category_map])
        self.stage("encoder", seeing, segmenter.train_encoder, *seeing, pool, self.rng(3))
        for name, rate, stream in (("text", 1e-3, 4), ("text-again", 8e-4, 11)):
            train = partial(segmenter.train_text, rate=rate)
            self.stage(name, told, train, net, self.category_map, pool, self.rng(stream))
        self.stage("clip", net.clip, towers.train_clip, net.clip, pool, self.rng(2))
        for cycle, name in enumerate(("clap", "clap-again")):
            mixer = Mixer(bank, self.rng(1 + 10 * cycle))
            self.stage(name, net.clap, towers.train_clap, net.clap, mixer)
        mixer = Mixer(bank, np.random.default_rng((SEED, 5)))  # the same in every process
        heard = audio_visual.hear(net.clap, mixer, **{k: self.part(n) for k, n in HEARD.items()})
        for name, rate, stream in (("shared", 1e-3, 6), ("shared-again", 6e-4, 8)):
            train = partial(audio_visual.train_shared, rate=rate)
            self.stage(name, whole, train, *whole, pool, heard, self.rng(stream))
        for name, rate, shares, stream in (
            ("joint", 4e-4, audio_visual.EAGER, 7),
            ("joint-again", 3e-4, audio_visual.WARY, 9),
        ):
            train = partial(audio_visual.train_joint, rate=rate, shares=shares)
            self.stage(name, net, train, net, pool, heard, self.rng(stream))
        return net

    def data(self) -> tuple[Pool, np.ndarray]:
        """Frames and sounds, made by the first process."""
        folder, bank, done = self.out / "pool", self.out / "bank.npy", self.out / "data.done"
        if self.rank == 0 and not done.exists():
            make_pool(folder, FRAMES, SEED)
            make_bank(bank, SOUNDS_PER_CATEGORY)
            done.touch()
        self.wait()
        return open_pool(folder), open_bank(bank)

    def stage(self, name: str, part: nn.Module, train: Callable[..., None], *args: object) -> None:
        """Train `part` unless its result is there already, and load the result."""
        path = self.out / f"{name}.safetensors"
        if not path.exists():
            torch.manual_seed(SEED + self.rank)
            log = Log(self.out / "log.jsonl", name, loud=self.rank == 0)
            train(*args, steps=self.part(STEPS[name]), size=BATCH[name] // self.world, log=log)
            if self.rank == 0:
                save_file({k: v.contiguous() for k, v in part.state_dict().items()}, path)
            self.wait()
        part.load_state_dict(load_file(path))
        part.requires_grad_(requires_grad=False).eval()

    def part(self, count: int) -> int:
        """The share of `count` that is asked for, at least one."""
        return max(1, round(count * self.share))

    def rng(self, stage: int) -> np.random.Generator:
        """Each stage and process draws for itself."""
        return np.random.default_rng((SEED, stage, self.rank))

    def wait(self) -> None:
        """Let the processes meet."""
        if self.world > 1:
            dist.barrier()


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/nano"))
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the steps, to try it out"
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
