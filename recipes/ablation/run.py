"""The paper's findings in small.

`python recipes/ablation/run.py --nano runs/nano --out runs/ablation`, after `recipes/nano/make.py`.

Every run trains one variant on a number of labelled clips by `av2tsam train`'s own loop, keeps the
epoch that is best on the validation split, and scores it on the test split. Each leaves a line in
`results.jsonl`; a second start goes on with what is missing. `report.py` makes table and plot.
"""

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file

from av2tsam_cli.data.avsbench import open_split
from av2tsam_cli.data.cache import EmbeddingCache
from av2tsam_cli.data.samples import embed_from, read_sample
from av2tsam_cli.evaluation.scoring import Scores, score_clips, summarise
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions
from data import SETS, make_data
from variants import VARIANTS, base_network, begin

STEPS = 240
"""Steps of the optimiser in every run, whatever the number of clips."""
BATCH = 8
"""Clips of a step."""
LR = 1e-3
"""The reference's 2e-4 is for a network ten times as wide."""
LEAST_EPOCHS = 2


@dataclass(frozen=True)
class Job:
    """One training."""

    data: str
    """Name of the data set in `SETS`."""
    variant: str
    """Name in `VARIANTS`."""
    clips: int
    """Labelled clips to learn from."""
    seed: int
    """Draws the clips, the fresh weights and the order."""


def jobs() -> Iterator[Job]:
    """The whole comparison, quick runs first."""
    for seed in (1, 2, 3):
        for variant in ("clap", "clip", "product"):
            yield Job("alone", variant, 200, seed)
        for clips in (50, 200, 1000):
            for variant in VARIANTS:
                yield Job("several", variant, clips, seed)


def run(job: Job, nano: Path, out: Path) -> dict[str, object]:
    """Train and score once."""
    torch.set_num_threads(1)
    network = begin(VARIANTS[job.variant], base_network(nano), job.seed)
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
    embed = embed_from(cache)
    samples = (read_sample(clip, network.config, embed) for clip in clips)
    return summarise(score_clips(network, samples, torch.device("cpu")))


def main() -> None:
    """Run what has no result yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nano", type=Path, default=Path("runs/nano"), help="recipes/nano's run")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    args = parser.parse_args()
    make_data(args.out / "data")
    results = args.out / "results.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    done = {tuple(json.loads(line)[key] for key in vars(Job("", "", 0, 0))) for line in lines}
    missing = [job for job in jobs() if tuple(vars(job).values()) not in done]
    context = get_context("spawn")
    with ProcessPoolExecutor(args.workers, context) as pool, results.open("a") as file:
        for future in [pool.submit(run, job, args.nano, args.out) for job in missing]:
            file.write(json.dumps(future.result()) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
