"""Speed-up of training by cached embeddings and cached image features.

    python benchmarks/embedding_cache.py --videos 32 --steps 10

Generates an MS3-like data set and times training steps (reading, forward, backward, AdamW) in
alternation: with CLIP and CLAP computed in every step, and with their embeddings cached; then,
without adapters, with the image encoder computed in every step, and with its features cached.
Prints one JSON line per variant. The last line has the ratios and the seconds for filling and
opening the cache.

`--preset` selects a full-size network with random weights, which take the same time as trained
ones.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.autograd import backward

from av2tsam_cli.data.avsbench import Clip, open_split
from av2tsam_cli.data.cache import EmbeddingCache, Embeddings, network_frames
from av2tsam_cli.data.clips import read_clip_frames, read_clip_windows
from av2tsam_cli.data.samples import Embed, collate, read_sample
from av2tsam_cli.inference.device import choose_device
from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import PRESETS
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.training.learner import MaskLogits
from av2tsam_cli.training.losses import batch_loss


def main() -> None:
    """Measure all variants and print the ratios on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--preset", choices=PRESETS, help="random weights instead of --model")
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4, help="videos of five frames")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each variant")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    network = make_network(args.model, args.preset, device)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sizes = (args.videos, 0, 0)
        write_dataset(root / "data", subset="ms3", videos=args.videos, seed=0, split_sizes=sizes)
        clips = open_split(root / "data", "ms3", "train")
        results = compare(network, clips, root / "cache", args.batch_size, args.steps)
    machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    settings = {"network": args.preset or args.model, "device": str(device)}
    print(json.dumps({**results, **settings, **machine}))


def make_network(model: str, preset: str | None, device: torch.device) -> Av2tSam:
    """Return the network to train."""
    if preset is not None:
        torch.manual_seed(0)
        return build(PRESETS[preset]).to(device)
    return load_model(model, device=str(device), precision="fp32").network


def compare(
    network: Av2tSam, clips: Sequence[Clip], folder: Path, batch_size: int, steps: int
) -> dict[str, object]:
    """Time the steps of all variants, and the cache itself."""
    open_cache = partial(EmbeddingCache.open_or_build, folder, network, clips)
    filled_s, _ = timed(open_cache)
    opened_s, cache = timed(open_cache)
    variants: dict[str, Embed] = {
        "computed in every step": partial(embed_now, network),
        "embeddings cached": cache.read,
    }
    embeddings = measure(network, clips, variants, batch_size, steps)
    network.adapter = None
    network.config = replace(network.config, adapter=False)
    features_s, features = timed(partial(open_cache, image=True))
    size = sum(path.stat().st_size for path in features.files[0][2:]) / clips[0].seconds
    variants = {
        "no adapters": cache.read,
        "no adapters, features cached": features.read,
    }
    encoder = measure(network, clips, variants, batch_size, steps)
    return {
        "embeddings_speedup": round(embeddings[0] / embeddings[1], 3),
        "features_speedup": round(encoder[0] / encoder[1], 3),
        "fill_s_per_video": round(filled_s / len(clips), 4),
        "open_s_per_video": round(opened_s / len(clips), 5),
        "fill_features_s_per_video": round(features_s / len(clips), 4),
        "features_mib_per_frame": round(size / 2**20, 3),
        "videos": len(clips),
        "batch_size": batch_size,
    }


def timed(make: Callable[[], EmbeddingCache]) -> tuple[float, EmbeddingCache]:
    """Return the seconds and the result."""
    start_s = time.perf_counter()
    cache = make()
    return time.perf_counter() - start_s, cache


def embed_now(network: Av2tSam, clip: Clip, seconds: Sequence[int]) -> Embeddings:
    """Compute what the cache contains."""
    device = next(network.parameters()).device
    windows = torch.from_numpy(read_clip_windows(clip, seconds, network.clap.config.rate_hz))
    frames = network_frames(network.config, read_clip_frames(clip, seconds))
    with torch.no_grad():
        clip = network.embed_frames(frames.to(device)).float()
        clap = network.embed_windows(windows.to(device)).float()
    return Embeddings(clip, clap)


def measure(
    network: Av2tSam,
    clips: Sequence[Clip],
    variants: dict[str, Embed],
    batch_size: int,
    steps: int,
) -> list[float]:
    """Return the median seconds of a step of each variant; the first step of each is a warm-up."""
    network.freeze_encoders()
    optimizer = torch.optim.AdamW((p for _, p in network.trained_parameters()), 1e-6)
    taken_s: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(steps + 1):
        batch = [clips[(number * batch_size + k) % len(clips)] for k in range(batch_size)]
        for variant, embed in variants.items():
            taken_s[variant].append(step(network, optimizer, batch, embed))
    medians = [statistics.median(taken_s[variant][1:]) for variant in variants]
    for variant, median_s in zip(variants, medians, strict=True):
        rates = {"s_per_step": round(median_s, 4), "videos_per_s": round(batch_size / median_s, 3)}
        print(json.dumps({"variant": variant, **rates}), flush=True)
    return medians


def step(
    network: Av2tSam,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[Clip],
    embed: Embed,
) -> float:
    """Return the seconds of one training step, including reading."""
    device = next(network.parameters()).device
    start_s = time.perf_counter()
    samples = [read_sample(clip, network.config, embed) for clip in batch]
    given = collate(network.config, samples, device)
    logits = MaskLogits(network)(given.sam, given.beit, given.clip, given.clap)
    masks = [sample.masks for sample in samples]
    backward(batch_loss(network.text_sam.resize, logits, masks))
    optimizer.step()
    optimizer.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
