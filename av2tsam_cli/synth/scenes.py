"""Sample scenes: which objects, where they are, how they move, when they sound."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from av2tsam_cli.synth.appearance import (
    sample_appearance,
    sample_background,
    sample_camera,
    sample_noise,
    sample_occluder,
    sample_seed,
)
from av2tsam_cli.synth.render import Renderer, pose, render
from av2tsam_cli.synth.turns import sample_turns, sample_turns_off_grid
from av2tsam_cli.synth.values import (
    Category,
    Instance,
    Motion,
    Occluder,
    Scene,
    SeedPool,
    SynthSubset,
    Turns,
    Voice,
)

__all__ = ["CATEGORIES", "Renderer", "Scene", "render", "sample_scene", "scene_rng"]

CATEGORIES: tuple[Category, ...] = tuple(
    Category(name, f"the {name}")
    for name in (
        "dog", "bird", "bell", "drum", "guitar", "car", "siren", "singer",
        "clock", "kettle", "phone", "trumpet", "frog", "bee", "helicopter", "maraca",
    )
)  # fmt: skip
NAMES: tuple[str, ...] = tuple(category.name for category in CATEGORIES)

SCENE_SECONDS = 5
NEGATIVE_SHARE = 0.1
DISTRACTOR_SHARE = 0.71
LEVEL_DBFS = (-28.0, -10.0)
_POOLS: dict[SeedPool, int] = {"train": 1, "val": 2, "test": 3, "samples": 4}
_ASPECTS = ((16, 9), (4, 3), (1, 1))
_LARGEST = (0.5, 0.5, 0.48, 0.45, 0.42)
"""Largest extent of an object by the number of objects in view."""
_MOVES = (0.5, 0.4, 0.25, 0.4, 0.3)
"""Shares of objects that drift, sway, bounce, rock and pulse."""
_LEAST_VISIBLE = 0.7
"""Smallest uncovered share of an object's disc for a position to be accepted."""


def scene_rng(pool: SeedPool, seed: int, index: int) -> np.random.Generator:
    """Return the random generator of one scene of a pool.

    The entropy starts with the pool's number, so that pools never share a scene, whatever the
    seeds: held-out scenes stay held out.
    """
    return np.random.default_rng(np.random.SeedSequence((_POOLS[pool], seed, index)))


class _Cast(NamedTuple):
    """The objects in view, by name, and the sources that sound."""

    names: tuple[str, ...]
    voices: dict[str, Voice]
    off_screen: Voice | None
    noise_only: bool


def sample_scene(rng: np.random.Generator, *, subset: SynthSubset, off_grid: bool = False) -> Scene:
    """Draw a scene of five seconds.

    Args:
        rng: Source of every choice; the same state gives the same scene.
        subset: `s4` has one source that always sounds, `ms3` two or three that come and go at whole
            seconds.
        off_grid: Let the sources of both subsets start and stop at any time. Nothing else changes:
            the same state gives the same picture and the same sources.

    Returns:
        The scene. In about one scene of ten no object in view sounds: the source is off screen, or
        there is only noise.
    """
    cast = _sample_cast(rng, subset)
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    width = aspect[0] / aspect[1]
    occluders = _sample_occluders(rng, width)
    instances = _arrange(rng, cast, width, occluders)
    loud = cast.noise_only
    noise = (
        sample_noise(rng, (-42, -12) if loud else (-55, -38))
        if loud or rng.random() < 0.8
        else None
    )
    scene = Scene(
        duration_s=SCENE_SECONDS,
        aspect=aspect,
        background=sample_background(rng),
        instances=instances,
        occluders=occluders,
        camera=sample_camera(rng),
        off_screen=cast.off_screen,
        noise=noise,
    )
    return _off_grid(rng.spawn(1)[0], scene, subset) if off_grid else scene


def _sample_cast(rng: np.random.Generator, subset: SynthSubset) -> _Cast:
    """Decide which objects are in view, and which sources sound when."""
    order = [NAMES[k] for k in rng.permutation(len(NAMES))]
    silent = int(rng.integers(1, 4)) if rng.random() < DISTRACTOR_SHARE else 0
    if rng.random() < NEGATIVE_SHARE:
        names = tuple(order[: max(1, silent)])
        if rng.random() < 0.4:
            return _Cast(names, {}, None, noise_only=True)
        turns = sample_turns(rng, subset, 1, SCENE_SECONDS)
        elsewhere = sample_voice(rng, order[-1], turns[0])
        return _Cast(names, {}, elsewhere, noise_only=False)
    sources = 1 if subset == "s4" else int(rng.integers(2, 4))
    names = tuple(order[: sources + (silent if subset == "s4" else min(silent, 5 - sources))])
    turns = sample_turns(rng, subset, sources, SCENE_SECONDS)
    level = rng.uniform(*LEVEL_DBFS)
    voices = {
        name: sample_voice(rng, name, on, level)
        for name, on in zip(order[:sources], turns, strict=True)
    }
    off_screen = None
    if subset == "ms3" and rng.random() < 0.08:  # one more, off screen
        more = sample_turns(rng, subset, 1, SCENE_SECONDS)
        off_screen = sample_voice(rng, order[-1], more[0], level)
    return _Cast(names, voices, off_screen, noise_only=False)


def sample_voice(
    rng: np.random.Generator, category: str, turns: Turns, level_dbfs: float | None = None
) -> Voice:
    """Draw the sound of one source; a given level is varied by a few decibels."""
    low, high = LEVEL_DBFS
    level = rng.uniform(low, high) if level_dbfs is None else level_dbfs + rng.uniform(-4, 4)
    return Voice(category, sample_seed(rng), float(np.clip(level, low - 2, high + 2)), turns)


def _off_grid(rng: np.random.Generator, scene: Scene, subset: SynthSubset) -> Scene:
    """Return the scene with sources that start and stop at any time."""
    turns = iter(sample_turns_off_grid(rng, subset, len(scene.voices), scene.duration_s))

    def moved(voice: Voice | None) -> Voice | None:
        return replace(voice, turns=next(turns), aligned=True) if voice else None

    instances = tuple(replace(each, voice=moved(each.voice)) for each in scene.instances)
    return replace(scene, instances=instances, off_screen=moved(scene.off_screen))


def _sample_occluders(rng: np.random.Generator, width: float) -> tuple[Occluder, ...]:
    count = int(rng.integers(1, 3)) if rng.random() < 0.22 else 0
    return tuple(sample_occluder(rng, width) for _ in range(count))


class _Spot(NamedTuple):
    """A position that is taken: the object, its size, and its path at five times, (5, 2)."""

    name: str
    size: float
    motion: Motion
    path: npt.NDArray[np.float64]


def _arrange(
    rng: np.random.Generator, cast: _Cast, width: float, occluders: tuple[Occluder, ...]
) -> tuple[Instance, ...]:
    """Place the objects one after another so that enough of each stays visible.

    Sources are placed first, while there is room. Their depth is random.
    """
    spots: list[_Spot] = []
    for name in cast.names:
        found = _find_spot(
            rng, name, spots, crowd=len(cast.names), width=width, occluders=occluders
        )
        if found is None and name in cast.voices:
            return _arrange(rng, cast, width, ())
        spots = found or spots
    return tuple(
        sample_instance(rng, spot.name, spot.size, spot.motion, cast.voices.get(spot.name))
        for spot in spots
    )


def _find_spot(
    rng: np.random.Generator,
    name: str,
    spots: list[_Spot],
    *,
    crowd: int,
    width: float,
    occluders: tuple[Occluder, ...],
) -> list[_Spot] | None:
    """Return the spots from back to front with one more; None if no position was found."""
    largest = _LARGEST[min(crowd, len(_LARGEST)) - 1]
    for attempt in range(40):
        roomy = max(0.22, largest * (1 - 0.012 * attempt))
        size = rng.triangular(0.2, 0.75 * roomy + 0.05, roomy)
        motion = sample_motion(rng, size, width)
        spot = _Spot(name, size, motion, _path(motion))
        depth = int(rng.integers(len(spots) + 1))
        candidate = [*spots[:depth], spot, *spots[depth:]]
        if least_visible(candidate, occluders) >= _LEAST_VISIBLE:
            return candidate
    return None


def sample_instance(
    rng: np.random.Generator, category: str, size: float, motion: Motion, voice: Voice | None
) -> Instance:
    """Draw how one object of a category looks."""
    return Instance(
        category=category,
        appearance=sample_appearance(rng),
        motion=motion,
        size=size,
        stretch=rng.uniform(0.86, 1.16),
        shear=rng.normal(0, 0.06),
        flip=bool(rng.random() < 0.5),
        voice=voice,
    )


def sample_motion(rng: np.random.Generator, size: float, width: float) -> Motion:
    """Draw a path on which an object of this size stays mostly inside the frame."""
    u = rng.random(14).tolist()
    drifts, sways, bounces, rocks, pulses = (u[k] < share for k, share in enumerate(_MOVES))
    drift = [0.08 * (v - 0.5) * drifts for v in u[5:7]]
    sway = [0.05 * v * sways for v in u[7:9]]
    bounce = (0.02 + 0.07 * u[9]) * bounces
    start = []
    for span, speed, amplitude, hop, v in zip(
        (width, 1.0), drift, sway, (0.0, bounce), rng.random(2).tolist(), strict=True
    ):
        slack = 0.46 * size + abs(speed) * SCENE_SECONDS / 2 + amplitude
        low, high = slack + hop, max(span - slack, slack + hop)
        start.append(low + (high - low) * v - speed * SCENE_SECONDS / 2)
    return Motion(
        centre=(start[0], start[1]),
        drift=(drift[0], drift[1]),
        sway=(sway[0], sway[1]),
        bounce=bounce,
        angle=math.radians(50 * u[10] - 25),
        rock=math.radians(3 + 7 * u[11]) * rocks,
        pulse=(0.02 + 0.06 * u[11]) * pulses,
        rate_hz=0.3 + 1.3 * u[12],
        phase=2 * math.pi * u[13],
    )


def _path(motion: Motion) -> npt.NDArray[np.float64]:
    return np.array([pose(motion, SCENE_SECONDS * k / 4)[0] for k in range(5)])


def least_visible(spots: list[_Spot], occluders: tuple[Occluder, ...]) -> float:
    """Return the smallest share of any object's disc that stays uncovered at five times."""
    radii = 0.42 * np.array([spot.size for spot in spots])
    centres = np.stack([spot.path for spot in spots])  # (N, T, 2)
    points = centres[:, :, None, :] + radii[:, None, None, None] * _DISC  # (N, T, P, 2)
    covered = np.zeros(points.shape[:3], bool)
    for k in range(1, len(spots)):  # everything behind object k
        gap = points[:k] - centres[k][None, :, None, :]
        covered[:k] |= np.einsum("ntpc,ntpc->ntp", gap, gap) < radii[k] ** 2
    for occluder in occluders:
        covered |= _covered_by(occluder, points)
    return float(1 - covered.mean(axis=2).max())


def _covered_by(occluder: Occluder, points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    gap = points - np.array(occluder.centre)
    if occluder.kind == "bar":
        across = np.array([-np.sin(occluder.angle), np.cos(occluder.angle)])
        return np.asarray(np.abs(gap @ across) < occluder.half_width + 0.01)
    return np.asarray((gap**2).sum(-1) < occluder.half_width**2)


def _disc_points() -> npt.NDArray[np.float64]:
    """Return points (P, 2) spread evenly over the unit disc (a sunflower's spiral)."""
    k = np.arange(40) + 0.5
    radius, angle = np.sqrt(k / 40), k * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


_DISC = _disc_points()
