"""nano's training data: a pool of rendered frames and a bank of sounds, generated from seeds.

The exact region of every visible object is stored with each frame, and sounds are stored by
category, so any frame can be paired with any sound and the true mask is known.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from av2tsam_cli.synth.appearance import sample_noise
from av2tsam_cli.synth.scenes import NAMES, Renderer, sample_scene, scene_rng
from av2tsam_cli.synth.sounds import background_noise, synthesise

SIDE = 128
"""Side of nano's SAM image in pixels."""
SLOTS = 8
"""Largest number of objects in a scene."""
FRAMES_PER_SCENE = 3
RATE_HZ = 16_000
BANK_SECONDS = 4
SOUND_SEED = 1
"""Seed of the bank's sounds, different from that of the frames' scenes."""


@dataclass(frozen=True)
class Pool:
    """Frames with their objects. N frames, S pixels per side, K object slots."""

    rgb: npt.NDArray[np.uint8]
    """(N, S, S, 3), RGB, squashed to a square."""
    ids: npt.NDArray[np.uint8]
    """(N, S, S): 0 background, i + 1 the visible pixels of the object in slot i."""
    labels: npt.NDArray[np.int8]
    """(N, K): category of the object in each slot, -1 for empty slots."""


def open_pool(folder: Path) -> Pool:
    """Open a pool written by `make_pool`, memory-mapped."""
    return Pool(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _POOL_PARTS))


_POOL_PARTS = ("rgb", "ids", "labels")


def make_pool(folder: Path, frames: int, seed: int, workers: int = 2) -> Pool:
    """Render frames of training scenes into a folder, a few per scene."""
    folder.mkdir(parents=True, exist_ok=True)
    rgb = open_memmap(folder / "rgb.npy", "w+", np.uint8, (frames, SIDE, SIDE, 3))
    ids = open_memmap(folder / "ids.npy", "w+", np.uint8, (frames, SIDE, SIDE))
    labels = open_memmap(folder / "labels.npy", "w+", np.int8, (frames, SLOTS))
    with ProcessPoolExecutor(workers) as pool:
        scenes = range(frames // FRAMES_PER_SCENE)
        drawn = pool.map(_draw_frames, repeat(seed), scenes, chunksize=32)
        for row, (picture, objects, present) in enumerate(
            frame for some in drawn for frame in some
        ):
            rgb[row], ids[row], labels[row] = picture, objects, present
    for array in (rgb, ids, labels):
        array.flush()
    return open_pool(folder)


def _draw_frames(seed: int, index: int) -> list[tuple[npt.NDArray[np.generic], ...]]:
    """Render frames of a scene at a random video size and squash them to S x S."""
    cv2.setNumThreads(1)
    rng = scene_rng("train", seed, index)
    scene = sample_scene(rng, subset="ms3" if index % 2 else "s4")
    labels = np.full(SLOTS, -1, np.int8)
    for slot, instance in enumerate(scene.instances):
        labels[slot] = NAMES.index(instance.category)
    height = int(rng.integers(80, 181)) * 2
    width = round(height * scene.width / 2) * 2
    if rng.random() < 0.4:  # as in AVSBench, whose frames are already square
        height = width = 224
    renderer = Renderer(scene, width, height)
    times = rng.uniform(0, scene.duration_s, FRAMES_PER_SCENE)
    return [(*_squash(*renderer.frame(float(time_s))), labels) for time_s in times]


def _squash(
    rgb: npt.NDArray[np.uint8], ids: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    square = (SIDE, SIDE)
    return (
        cv2.resize(rgb, square, interpolation=cv2.INTER_AREA),
        cv2.resize(ids, square, interpolation=cv2.INTER_NEAREST),
    )


def open_bank(path: Path) -> npt.NDArray[np.int16]:
    """Open a bank written by `make_bank`, memory-mapped: (C, M, samples), int16."""
    return np.load(path, mmap_mode="r")


def make_bank(path: Path, per_category: int, workers: int = 2) -> None:
    """Synthesise sounds of each category, peak-normalised."""
    shape = (len(NAMES), per_category, BANK_SECONDS * RATE_HZ)
    bank = open_memmap(path, "w+", np.int16, shape)
    with ProcessPoolExecutor(workers) as pool:
        for row, name in enumerate(NAMES):
            seeds = range(row * per_category, (row + 1) * per_category)
            for column, sound in enumerate(pool.map(_sound, repeat(name), seeds, chunksize=16)):
                bank[row, column] = sound
    bank.flush()


def _sound(category: str, index: int) -> npt.NDArray[np.int16]:
    sound = synthesise(category, scene_rng("train", SOUND_SEED, index), BANK_SECONDS, RATE_HZ)
    return np.round(sound / max(1e-6, float(np.abs(sound).max())) * 32767).astype(np.int16)


CHANGE_SHARE = 0.2
"""Share of sources that start or stop within a window, and of windows with one more source that
does not sound in the middle."""
EDGE_S = 0.36
"""Sources start and stop at most this far from an end of a window, not in its middle."""


class Mixer:
    """Draws one-second windows in the middle of which a given set of categories sounds."""

    def __init__(self, bank: npt.NDArray[np.int16], rng: np.random.Generator) -> None:
        self.bank = bank
        self.rng = rng

    def window(self, categories: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return a window (RATE_HZ,) float32 of these categories with background noise."""
        mix = self._noise(alone=not categories)
        loudness = self.rng.uniform(-28, -10)
        for category in categories:
            gate = self._gate(middle=True) if self.rng.random() < CHANGE_SHARE else np.float32(1)
            mix += gate * self._source(category, loudness)
        if self.rng.random() < CHANGE_SHARE:
            others = [c for c in range(len(NAMES)) if c not in categories]
            mix += self._gate(middle=False) * self._source(int(self.rng.choice(others)), loudness)
        peak = np.abs(mix).max()
        return mix / peak * np.float32(0.99) if peak > 1 else mix

    def _gate(self, *, middle: bool) -> npt.NDArray[np.float32]:
        """Return 1 on one side of a change and 0 on the other; 1 in the middle if asked."""
        change = self.rng.uniform(0, EDGE_S)
        before = np.arange(RATE_HZ) < change * RATE_HZ
        on = np.where(middle, ~before, before).astype(np.float32)
        return on if self.rng.random() < 0.5 else on[::-1]

    def _source(self, category: int, loudness_dbfs: float) -> npt.NDArray[np.float32]:
        level_dbfs = float(np.clip(loudness_dbfs + self.rng.uniform(-5, 5), -32, -7))
        sounds = self.bank[category]
        sound = sounds[self.rng.integers(len(sounds))].astype(np.float32) / 32768
        # The level belongs to the whole sound: a window between two barks is quieter.
        gain = 10 ** (level_dbfs / 20) / max(1e-4, float(np.sqrt(np.mean(sound * sound))))
        start = self.rng.integers(len(sound) - RATE_HZ + 1)
        return sound[start : start + RATE_HZ] * np.float32(gain)

    def _noise(self, *, alone: bool) -> npt.NDArray[np.float32]:
        if not alone and self.rng.random() < 0.2:
            return np.zeros(RATE_HZ, np.float32)
        level = (-56, -10) if alone else (-58, -36)
        return background_noise(sample_noise(self.rng, level), 1, RATE_HZ)
