"""Short videos for measuring the shortcuts of `segment`, and the agreement of their masks."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.pipeline import iter_masks
from av2tsam_cli.synth.scenes import sample_scene, scene_rng
from av2tsam_cli.synth.values import Scene
from av2tsam_cli.values import BoolArray, Float32Array, UInt8Array

SIZE, RATE, RATE_HZ = (640, 360), 25, 16_000
"""Width and height in pixels, frames per second and audio samples per second."""


@dataclass(frozen=True)
class Run:
    """Result of segmenting one video with one set of options."""

    masks: list[BoolArray] = field(default_factory=list)
    """The mask of every frame, (H, W)."""
    computed: list[bool] = field(default_factory=list)
    """For every frame, whether the network processed it."""
    wall_s: float = 0.0
    """Seconds, including decoding but not drawing and encoding."""


def drawn_scene(index: int) -> Scene:
    """Return a scene in which a single object sounds throughout."""
    return sample_scene(scene_rng("test", 9, index), subset="s4")


def write(path: Path, frames: Iterable[UInt8Array], sound: Float32Array, *, crf: int = 23) -> Path:
    """Write frames and their sound, encoded as most videos are."""
    h264 = {"preset": "medium", "crf": str(crf), "threads": "1"}
    write_clip(path, frames, sound, size=SIZE, rate=RATE, rate_hz=RATE_HZ, h264=h264)
    return path


def segment(video: Path, model: LoadedModel, **options: Any) -> Run:
    """Run the pipeline of `segment` on a video."""
    run, start_s = Run(), time.perf_counter()
    for frame_mask in iter_masks(video, model=model, **options):
        run.masks.append(frame_mask.mask)
        run.computed.append(frame_mask.origin == "computed")
    return replace(run, wall_s=time.perf_counter() - start_s)


def ious(masks: Sequence[BoolArray], expected: Sequence[BoolArray]) -> list[float]:
    """Return the IoU of each pair of masks; it is 1 for two empty masks."""
    return [_iou(a, b) for a, b in zip(masks, expected, strict=True)]


def _iou(a: BoolArray, b: BoolArray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0
