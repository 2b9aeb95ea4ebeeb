"""Short videos on which a shortcut is measured, and how far its masks agree with the long way's."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.masks import BoolArray
from av2tsam_cli.pipeline import iter_masks
from av2tsam_cli.synth.clips import write_clip
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.sounds import soundtrack
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import UInt8Array

SIZE, RATE, RATE_HZ = (640, 360), 25, 16_000
"""Pixels, frames per second and samples per second."""


@dataclass(frozen=True)
class Run:
    """One video segmented one way."""

    masks: list[BoolArray] = field(default_factory=list)
    """The mask of every frame, (H, W)."""
    followed: list[bool] = field(default_factory=list)
    """Which of the frames are between keys."""
    repeats: list[bool] = field(default_factory=list)
    """Which of them repeat a key."""
    wall_s: float = 0.0
    """Seconds that they took: decoding is in it, drawing and encoding are not."""


def drawn_scene(index: int) -> Scene:
    """One of the scenes that are measured on: a single object sounds throughout."""
    return sample_scene(scene_rng("test", 9, index), subset="s4")


def write(path: Path, scene: Scene, frames: Iterable[UInt8Array], *, crf: int = 23) -> Path:
    """Write frames with a scene's sound as most videos are encoded."""
    h264 = {"preset": "medium", "crf": str(crf), "threads": "1"}
    sound = soundtrack(scene, RATE_HZ)
    write_clip(path, frames, sound, size=SIZE, rate=RATE, rate_hz=RATE_HZ, h264=h264)
    return path


def segment(video: Path, model: LoadedModel, **options: Any) -> Run:
    """The masks of a video by the pipeline that `segment` runs, and the time they took."""
    run, began_s = Run(), time.perf_counter()
    for each in iter_masks(video, model=model, **options):
        run.masks.append(each.mask)
        run.repeats.append(each.origin == "reused")
        run.followed.append(each.origin == "interpolated")
    return replace(run, wall_s=time.perf_counter() - began_s)


def ious(found: Sequence[BoolArray], wanted: Sequence[BoolArray]) -> list[float]:
    """IoU of each mask with its counterpart; two empty ones agree."""
    return [_iou(a, b) for a, b in zip(found, wanted, strict=True)]


def _iou(a: BoolArray, b: BoolArray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
