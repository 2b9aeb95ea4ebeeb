"""Run a small-scale version of the paper's ablation.

`python recipes/ablation/run.py --nano runs/nano --out runs/ablation`, after `recipes/nano/make.py`.

Each run trains one variant on a number of labelled clips with the loop of `av2tsam train`, keeps
the best epoch on the validation split, and scores it on the test split. Each adds a line to
`results.jsonl`; running the script again does the missing runs. `report.py` makes table and plot.
With `--pytorch-init`, three variants are run with 50 clips and PyTorch's default initialisation of
the new layers instead of the reference's, into `pytorch-init.jsonl`.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file

from av2tsam_cli.data.avsbench import open_split
from av2tsam_cli.data.cache import EmbeddingCache
from av2tsam_cli.data.samples import read_sample
from av2tsam_cli.evaluation.scoring import Scores, mean_scores, predict, score_video
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions
from data import SETS, make_data
from variants import VARIANTS, base_network, initial_network

STEPS = 240
"""Optimiser steps per run, for any number of clips."""
BATCH = 8
"""Clips per step."""
LR = 1e-3
"""The reference's 2e-4 is for a network ten times as wide."""
LEAST_EPOCHS = 2


@dataclass(frozen=True)
class Job:
    """One training run."""

    data: str
    """Name of the data set in `SETS`."""
    variant: str
    """Name in `VARIANTS`."""
    clips: int
    """Number of labelled training clips."""
    seed: int
    """Seed of the selection of clips, the initial weights and the order."""


def jobs() -> Iterator[Job]:
    """Yield all runs of the ablation, quick ones first."""
    for seed in (1, 2, 3):
        for variant in ("clap", "clip", "product"):
            yield Job("alone", variant, 200, seed)
        for clips in (50, 200, 1000):
            for variant in VARIANTS:
                yield Job("several", variant, clips, seed)


def comparison_jobs() -> Iterator[Job]:
    """Yield the runs with PyTorch's initialisation."""
    for seed in (1, 2, 3):
        for variant in ("direct", "clap", "product"):
            yield Job("several", variant, 50, seed)


def run(job: Job, nano: Path, out: Path, *, pytorch_init: bool = False) -> dict[str, object]:
    """Train and score one run."""
    torch.set_num_threads(1)
    network = initial_network(
        VARIANTS[job.variant], base_network(nano), job.seed, pytorch_init=pytorch_init
    )
    subset = SETS[job.data].subset
    batch = min(BATCH, max(1, job.clips // 8))
    epochs = max(LEAST_EPOCHS, round(STEPS * BATCH / job.clips))
    with TemporaryDirectory(dir=out) as folder:
        options = TrainOptions(
            out=Path(folder) / "run",
            data=str(out / "data" / job.data),
            subset=subset,
            train_clips=job.clips,
            epochs=epochs,
            batch_size=batch,
            lr=LR,
            clip_norm=1.0,
            seed=job.seed,
            device="cpu",
            precision="auto",
            workers=1,
            cache=out / "cache",
            test=False,  # scored below
            cache_features=not VARIANTS[job.variant].adapter,
        )
        result = train(options, network=network)
        network.load_state_dict(load_file(result.checkpoint))
    scores = test(network, out, job)
    return {
        **vars(job),
        "miou": scores.miou,
        "f_score": scores.f_score,
        "val_miou": result.best.val_miou,
        "best_epoch": result.best.epoch,
        "epochs": epochs,
        "steps": result.steps,
        "train_s": round(sum(row.train_s for row in result.epochs), 1),
    }


def test(network: torch.nn.Module, out: Path, job: Job) -> Scores:
    """Score on the test split by AVSBench's protocol."""
    clips = open_split(out / "data" / job.data, SETS[job.data].subset, "test")
    cached = not VARIANTS[job.variant].adapter
    cache = EmbeddingCache.open_or_build(out / "cache", network, clips, image=cached)
    samples = (read_sample(clip, network.config, cache.read) for clip in clips)
    device = torch.device("cpu")
    return mean_scores(score_video(one, predict(network, one, device)) for one in samples)


def main() -> None:
    """Do all runs that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--nano", type=Path, default=Path("runs/nano"), help="run folder of recipes/nano"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--workers", type=int, default=2, help="parallel runs")
    parser.add_argument("--pytorch-init", action="store_true")
    args = parser.parse_args()
    make_data(args.out / "data")
    results = args.out / ("pytorch-init.jsonl" if args.pytorch_init else "results.jsonl")
    lines = results.read_text().splitlines() if results.exists() else []
    done = {tuple(json.loads(line)[key] for key in vars(Job("", "", 0, 0))) for line in lines}
    wanted = comparison_jobs() if args.pytorch_init else jobs()
    missing = [job for job in wanted if tuple(vars(job).values()) not in done]
    context = get_context("spawn")
    do = partial(run, nano=args.nano, out=args.out, pytorch_init=args.pytorch_init)
    with ProcessPoolExecutor(args.workers, context) as pool, results.open("a") as file:
        for future in [pool.submit(do, job) for job in missing]:
            file.write(json.dumps(future.result()) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
