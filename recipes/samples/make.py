"""Generate sample_media/: five short videos with exact masks, from seeds not used in training.

Run from the repository: `python recipes/samples/make.py [FOLDER]`.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from av2tsam_cli.synth.appearance import (
    sample_appearance,
    sample_background,
    sample_camera,
    sample_seed,
)
from av2tsam_cli.synth.clips import write_sample
from av2tsam_cli.synth.scenes import scene_rng
from av2tsam_cli.synth.values import (
    BackgroundNoise,
    Camera,
    Colour,
    Instance,
    Motion,
    Scene,
    Turns,
    Voice,
)

SIZE = (640, 360)
FPS = 25
LARGEST_BYTES = 500_000
NOISE_DBFS = -52.0


class Part(NamedTuple):
    """One object of a sample."""

    category: str
    x: float
    """Middle of its path across the frame, 0 to 1."""
    y: float
    """Middle of its path down the frame, 0 to 1."""
    size: float
    """Largest extent in frame heights."""
    on: Turns
    """When it sounds, in seconds; empty for a silent object."""
    colour: Colour
    accent: Colour


class Sample(NamedTuple):
    """One video."""

    number: int
    """Position in the pool of seeds for samples."""
    seconds: int
    colours: tuple[Colour, ...]
    """Colours of the backdrop."""
    parts: tuple[Part, ...]
    off_screen: str | None = None
    """Category that sounds off screen."""
    aligned: bool = False
    """Each turn begins and ends with something to hear; see `Voice.aligned`."""


SAMPLES = {
    "duet": Sample(
        0, 8, ((38, 70, 83), (42, 110, 115), (70, 130, 125)),
        (
            Part("dog", 0.27, 0.52, 0.50, ((0, 2), (4, 6)), (222, 166, 96), (128, 78, 44)),
            Part("trumpet", 0.73, 0.48, 0.50, ((2, 6),), (240, 200, 70), (186, 104, 44)),
        ),
    ),
    "solo": Sample(
        1, 5, ((188, 214, 186), (226, 224, 190), (150, 190, 170)),
        (Part("frog", 0.5, 0.5, 0.48, ((0, 5),), (94, 168, 74), (58, 112, 52)),),
    ),
    "crowd": Sample(
        2, 6, ((230, 216, 200), (214, 186, 170), (180, 170, 186)),
        (
            Part("car", 0.22, 0.75, 0.42, (), (196, 66, 60), (120, 36, 40)),
            Part("bell", 0.24, 0.27, 0.38, ((0, 2),), (226, 178, 60), (150, 96, 36)),
            Part("siren", 0.5, 0.47, 0.38, ((4, 6),), (60, 110, 200), (250, 206, 70)),
            Part("drum", 0.78, 0.28, 0.38, (), (70, 150, 120), (226, 196, 130)),
            Part("bird", 0.76, 0.75, 0.40, ((2, 4),), (110, 160, 214), (232, 150, 60)),
        ),
    ),
    "offscreen": Sample(
        3, 5, ((54, 48, 74), (92, 74, 110), (70, 90, 130)),
        (
            Part("guitar", 0.3, 0.5, 0.50, (), (206, 138, 70), (110, 64, 36)),
            Part("clock", 0.7, 0.5, 0.44, (), (120, 180, 190), (226, 112, 84)),
        ),
        off_screen="helicopter",
    ),
    "relay": Sample(  # no change falls on a whole second
        4, 8, ((206, 196, 222), (178, 190, 220), (222, 208, 200)),
        (
            Part("phone", 0.2, 0.3, 0.44, ((0, 1.37), (5.24, 6.18)), (206, 74, 70), (246, 200, 90)),
            Part("frog", 0.52, 0.7, 0.44, ((1.37, 3.85), (6.18, 8)), (94, 168, 74), (58, 112, 52)),
            Part("guitar", 0.8, 0.34, 0.50, ((2.91, 4.62),), (206, 138, 70), (110, 64, 36)),
        ),
        aligned=True,
    ),
}  # fmt: skip


def compose(sample: Sample) -> Scene:
    """Build the scene of a sample; unspecified details are drawn from its seed."""
    rng = scene_rng("samples", 0, sample.number)
    aspect = (16, 9)
    off_screen = None
    if sample.off_screen:
        off_screen = Voice(sample.off_screen, sample_seed(rng), -16.0, ((0.0, sample.seconds),))
    backdrop = sample_background(rng)
    return Scene(
        duration_s=sample.seconds,
        aspect=aspect,
        background=replace(backdrop, colours=sample.colours, octaves=4, clutter=4, pattern="none"),
        instances=tuple(
            _make_instance(rng, part, aspect[0] / aspect[1], aligned=sample.aligned)
            for part in sample.parts
        ),
        occluders=(),
        camera=_calm(sample_camera(rng)),
        off_screen=off_screen,
        noise=BackgroundNoise(sample_seed(rng), "pink", NOISE_DBFS),
    )


def _make_instance(
    rng: np.random.Generator, part: Part, width: float, *, aligned: bool
) -> Instance:
    voice = None
    if part.on:
        voice = Voice(part.category, sample_seed(rng), -16.0, part.on, aligned)
    look = sample_appearance(rng)
    red, green, blue = (round(0.72 * c) for c in part.colour)
    return Instance(
        category=part.category,
        appearance=replace(
            look,
            body=part.colour,
            body_variant=(red, green, blue),
            accent=part.accent,
            pale=(248, 246, 238),
            dark=(34, 30, 38),
            ink=(30, 26, 34),
            outline=0.045,
            texture="gradient",
            texture_angle=1.2,
        ),
        motion=Motion(
            centre=(part.x * width, part.y),
            drift=(0.0, 0.0),
            sway=(rng.uniform(0.04, 0.07), rng.uniform(0.0, 0.02)),
            bounce=0.0,
            angle=np.radians(rng.uniform(-10, 10)),
            rock=np.radians(rng.uniform(3, 7)),
            pulse=0.02,
            rate_hz=rng.uniform(0.3, 0.6),
            phase=rng.uniform(0, 2 * np.pi),
        ),
        size=part.size,
        stretch=1.0,
        shear=0.0,
        flip=False,
        voice=voice,
    )


def _calm(camera: Camera) -> Camera:
    """Keep the drift; little noise, neutral colours, no JPEG compression."""
    return replace(
        camera, gain=(1.0, 1.0, 1.0), gamma=1.0, flicker=0.01, noise=1.2, jpeg_quality=None
    )


def main(folder: Path) -> None:
    """Write every sample to a folder, replacing existing files of the same name."""
    for name, sample in SAMPLES.items():
        video, masks = folder / f"{name}.mp4", folder / f"{name}_masks"
        shutil.rmtree(masks, ignore_errors=True)
        write_sample(compose(sample), video, masks, SIZE, FPS)
        size = video.stat().st_size
        assert size <= LARGEST_BYTES, f"{video} has {size} bytes, more than {LARGEST_BYTES}"
        print(f"{video}: {size} bytes, {sample.seconds * FPS} masks")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sample_media"))
