"""Sampling scenes: which objects, where they are, how they move, when they sound."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from av2tsam_cli.synth.looks import (
    sample_appearance,
    sample_background,
    sample_camera,
    sample_noise,
    sample_occluder,
    sample_seed,
)
from av2tsam_cli.synth.render import Renderer, pose, render
from av2tsam_cli.synth.values import (
    Category,
    Instance,
    Motion,
    Occluder,
    Pool,
    Scene,
    Seconds,
    Subset,
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
_POOLS: dict[Pool, int] = {"train": 1, "val": 2, "test": 3, "samples": 4}
_ASPECTS = ((16, 9), (4, 3), (1, 1))
_LARGEST = (0.5, 0.5, 0.48, 0.45, 0.42)
"""Largest extent of an object by the number of objects in view."""
_MOVES = (0.5, 0.4, 0.25, 0.4, 0.3)
"""Shares of objects that drift, sway, bounce, rock and pulse."""
_LEAST_VISIBLE = 0.7
"""Share of an object's disc that nothing may cover while a place is sought."""


def scene_rng(pool: Pool, seed: int, index: int) -> np.random.Generator:
    """Returns the generator of one scene of a pool.

    The pools' entropies start with different words, so that no scene of one pool is ever a scene
    of another, whatever the seeds: what is held out stays held out.
    """
    return np.random.default_rng(np.random.SeedSequence((_POOLS[pool], seed, index)))


class _Cast(NamedTuple):
    """Who is in the scene: names of objects in view and their voices."""

    names: tuple[str, ...]
    voices: dict[str, Voice]
    heard: Voice | None
    noise_only: bool


def sample_scene(rng: np.random.Generator, *, subset: Subset) -> Scene:
    """Draws a scene of five seconds.

    Args:
        rng: Source of every choice; the same state gives the same scene.
        subset: `s4` has one source that sounds all the time, `ms3` two or three that come and go.

    Returns:
        The scene. In about one of ten nothing in view sounds: the source is elsewhere, or there is
        only noise.
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
    return Scene(
        duration_s=SCENE_SECONDS,
        aspect=aspect,
        background=sample_background(rng),
        instances=instances,
        occluders=occluders,
        camera=sample_camera(rng),
        heard=cast.heard,
        noise=noise,
    )


def _sample_cast(rng: np.random.Generator, subset: Subset) -> _Cast:
    """Decides who is in view and who sounds when."""
    order = [NAMES[k] for k in rng.permutation(len(NAMES))]
    silent = int(rng.integers(1, 4)) if rng.random() < DISTRACTOR_SHARE else 0
    if rng.random() < NEGATIVE_SHARE:
        names = tuple(order[: max(1, silent)])
        if rng.random() < 0.4:
            return _Cast(names, {}, None, noise_only=True)
        elsewhere = sample_voice(rng, order[-1], sample_seconds(rng, subset, 1)[0])
        return _Cast(names, {}, elsewhere, noise_only=False)
    sources = 1 if subset == "s4" else int(rng.integers(2, 4))
    names = tuple(order[: sources + (silent if subset == "s4" else min(silent, 5 - sources))])
    seconds = sample_seconds(rng, subset, sources)
    level = rng.uniform(*LEVEL_DBFS)
    turns = zip(order[:sources], seconds, strict=True)
    voices = {name: sample_voice(rng, name, on, level) for name, on in turns}
    heard = None
    if subset == "ms3" and rng.random() < 0.08:  # one more that is heard and not seen
        heard = sample_voice(rng, order[-1], sample_seconds(rng, subset, 1)[0], level)
    return _Cast(names, voices, heard, noise_only=False)


def sample_seconds(rng: np.random.Generator, subset: Subset, sources: int) -> list[Seconds]:
    """Draws when each source sounds: always (S4), or turns and overlapping stretches (MS3)."""
    seconds = np.ones((sources, SCENE_SECONDS), bool)
    if subset == "ms3":
        kind = rng.random()
        if kind < 0.3 and sources > 1:  # turns
            cuts = np.sort(rng.choice(np.arange(1, SCENE_SECONDS), sources - 1, replace=False))
            turn = np.searchsorted(cuts, np.arange(SCENE_SECONDS), side="right")
            seconds = turn[None, :] == rng.permutation(sources)[:, None]
        else:  # stretches that start and stop where they like
            lengths = rng.integers(1, SCENE_SECONDS + 1, sources)
            starts = [int(rng.integers(0, SCENE_SECONDS + 1 - length)) for length in lengths]
            at = np.arange(SCENE_SECONDS) - np.array(starts)[:, None]
            seconds = (at >= 0) & (at < lengths[:, None])
    return [tuple(row) for row in seconds.tolist()]


def sample_voice(
    rng: np.random.Generator, category: str, seconds: Seconds, level_dbfs: float | None = None
) -> Voice:
    """Draws one source's sound; a given level is varied by some decibels."""
    low, high = LEVEL_DBFS
    level = rng.uniform(low, high) if level_dbfs is None else level_dbfs + rng.uniform(-4, 4)
    return Voice(category, sample_seed(rng), float(np.clip(level, low - 2, high + 2)), seconds)


def _sample_occluders(rng: np.random.Generator, width: float) -> tuple[Occluder, ...]:
    count = int(rng.integers(1, 3)) if rng.random() < 0.22 else 0
    return tuple(sample_occluder(rng, width) for _ in range(count))


class _Spot(NamedTuple):
    """A place that is taken: by whom, how large, and where at five times (5, 2)."""

    name: str
    size: float
    motion: Motion
    path: npt.NDArray[np.float64]


def _arrange(
    rng: np.random.Generator, cast: _Cast, width: float, occluders: tuple[Occluder, ...]
) -> tuple[Instance, ...]:
    """Places the objects one after another, each where enough of all stays visible.

    Sources come first, so that they find a place; how far in front each one is, is drawn as well.
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
    """Returns the spots from back to front with one more; None where no place was found."""
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
    """Draws how one object of a category looks."""
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
    """Draws a path on which an object of this size stays mostly inside the frame."""
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
    """Returns the smallest share of any object's disc that stays uncovered at five times."""
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
    """Returns points (P, 2) spread evenly over the unit disc (a sunflower's spiral)."""
    k = np.arange(40) + 0.5
    radius, angle = np.sqrt(k / 40), k * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


_DISC = _disc_points()
