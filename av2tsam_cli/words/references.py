"""Sounds and pictures that no name fits, to measure how well phrases fit by chance."""

import numpy as np

from av2tsam_cli.synth.sounds import background_noise
from av2tsam_cli.synth.values import BackgroundNoise, NoiseColour
from av2tsam_cli.values import Float32Array, UInt8Array

SECONDS = 5
"""Length of the reference sounds."""
CHORDS_HZ = ((220.0, 277.2, 329.6), (196.0, 246.9, 293.7), (174.6, 220.0, 261.6))
"""Notes of the chords that stand for music: A, G and F major."""
SIDE_PX = 64
"""Side of the reference pictures."""


def reference_sounds(rate_hz: int) -> list[Float32Array]:
    """Return a very faint hiss, noise of several colours, mains hum, and chords, (n,) each."""
    noises = [BackgroundNoise(0, "white", -75.0)]
    colours: tuple[NoiseColour, ...] = ("white", "pink", "brown", "hum")
    noises += [BackgroundNoise(1, colour, -25.0) for colour in colours]
    sounds = [background_noise(noise, SECONDS, rate_hz) for noise in noises]
    return [*sounds, _chords(rate_hz)]


def _chords(rate_hz: int) -> Float32Array:
    """Play a chord per half second, each fading."""
    beats = np.arange(SECONDS * rate_hz) * (2 / rate_hz)
    notes_hz = np.array(CHORDS_HZ)[beats.astype(int) % len(CHORDS_HZ)]  # (n, 3)
    waves = np.sin(np.pi * notes_hz * beats[:, None]).mean(axis=1)
    return np.asarray(0.2 * waves * np.exp(-4.0 * (beats % 1)), np.float32)


def reference_frames() -> list[UInt8Array]:
    """Return plain grey, black, white, a gradient, and noise, (64, 64, 3) each."""
    plain = [np.full((SIDE_PX, SIDE_PX, 3), level, np.uint8) for level in (128, 0, 255)]
    gradient = np.linspace(40, 220, SIDE_PX).astype(np.uint8)[:, None, None]
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    return [*plain, np.broadcast_to(gradient, (SIDE_PX, SIDE_PX, 3)).copy(), noise]
