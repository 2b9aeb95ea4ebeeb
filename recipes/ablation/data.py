"""The two generated data sets of the ablation."""

import csv
from dataclasses import dataclass
from pathlib import Path

from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.values import SynthSubset


@dataclass(frozen=True)
class DataSpec:
    """One generated data set."""

    subset: SynthSubset
    """Layout and labels."""
    sizes: tuple[int, int, int]
    """Videos generated for train, val and test."""
    seed: int
    """Seed; different from those of the training data of the towers and the text-prompted SAM."""
    alone: bool = False
    """Whether to keep only scenes with a single object, which sounds."""


SETS = {
    # Few validation clips: a run on 50 clips has 51 epochs, and each is validated.
    "several": DataSpec("ms3", (1000, 16, 200), seed=11),
    "alone": DataSpec("s4", (1000, 150, 600), seed=12, alone=True),
}


def make_data(folder: Path) -> None:
    """Generate the data sets that are missing."""
    for name, wanted in SETS.items():
        if (folder / name).exists():
            continue
        write_dataset(
            folder / name,
            subset=wanted.subset,
            videos=sum(wanted.sizes),
            seed=wanted.seed,
            split_sizes=wanted.sizes,
        )
        if wanted.alone:
            keep_alone(folder / name / "Single-source" / "s4_meta_data.csv", wanted.seed)


def keep_alone(table: Path, seed: int) -> None:
    """Remove all videos from a CSV except those of a single sounding object."""
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    kept = [row for row in rows if is_alone(row[header.index("name")], seed)]
    with table.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *kept])


def is_alone(name: str, seed: int) -> bool:
    """Return whether a video's scene has exactly one object, which sounds."""
    subset, split, index = name.split("_")
    scene = sample_scene(scene_rng(split, seed, int(index)), subset=subset)
    return len(scene.instances) == 1 and len(scene.voices) == 1
