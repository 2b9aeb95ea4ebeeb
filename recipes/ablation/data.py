"""The two data sets of the comparison, made by the project's own generator."""

import csv
from dataclasses import dataclass
from pathlib import Path

from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.values import Subset


@dataclass(frozen=True)
class Set:
    """One generated data set."""

    subset: Subset
    """Whose layout and labels it has."""
    sizes: tuple[int, int, int]
    """Videos that are drawn for train, val and test."""
    seed: int
    """Another one than any that the towers or the text-prompted SAM were trained on."""
    alone: bool = False
    """Keep only the scenes in which the one object in view sounds."""


SETS = {
    # Few for validation: with 50 clips to learn from there are 51 epochs, and each is scored.
    "several": Set("ms3", (1000, 16, 200), seed=11),
    "alone": Set("s4", (1000, 150, 600), seed=12, alone=True),
}


def make_data(folder: Path) -> None:
    """Make what is missing."""
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
    """Leave out of the list every video that shows anything but one sounding object."""
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    kept = [row for row in rows if is_alone(row[header.index("name")], seed)]
    with table.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *kept])


def is_alone(name: str, seed: int) -> bool:
    """Whether the scene behind a video's name has one object, and that sounds."""
    subset, split, index = name.split("_")
    scene = sample_scene(scene_rng(split, seed, int(index)), subset=subset)
    return len(scene.instances) == 1 and len(scene.voices) == 1
