"""Sample appearances: colours with enough contrast, textures, backgrounds, cameras, noise."""

import colorsys

import numpy as np

from av2tsam_cli.synth.values import (
    Appearance,
    Background,
    BackgroundNoise,
    Camera,
    Colour,
    Occluder,
    Pattern,
)

_SEED_LIMIT = 2**31


def sample_seed(rng: np.random.Generator) -> int:
    """Draw a seed for something that is generated later."""
    return int(rng.integers(_SEED_LIMIT))


def luminance(colour: Colour) -> float:
    """Return the perceived brightness in [0, 1] (Rec. 601 weights)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def sample_colour(
    rng: np.random.Generator,
    saturation: tuple[float, float] = (0.0, 1.0),
    value: tuple[float, float] = (0.1, 1.0),
) -> Colour:
    """Draw a colour of any hue within ranges of saturation and value."""
    return _rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def sample_appearance(rng: np.random.Generator) -> Appearance:
    """Draw colours that keep the inner structure visible, whatever the body's colour."""
    hue, saturation, value = rng.random(), rng.uniform(0.1, 1.0), rng.uniform(0.35, 1.0)
    body = _rgb(hue, saturation, value)
    shift = rng.uniform(0.14, 0.3) * (-1 if value > 0.65 else 1)
    variant = _rgb(hue + rng.uniform(-0.12, 0.12), saturation, value + shift)
    accent = _contrasting(rng, luminance(body), 0.28)
    dark = sample_colour(rng, (0.0, 0.7), (0.03, 0.28))
    pale = sample_colour(rng, (0.0, 0.22), (0.88, 1.0))
    if luminance(body) > 0.72:  # pale details would vanish on a pale body
        pale = sample_colour(rng, (0.3, 0.9), (0.4, 0.62))
    if luminance(body) < 0.25:  # so would dark ones on a dark body
        dark = sample_colour(rng, (0.0, 0.5), (0.55, 0.75))
    ink = dark if rng.random() < 0.75 else sample_colour(rng, (0.0, 0.3), (0.85, 1.0))
    return Appearance(
        body=body,
        body_variant=variant,
        accent=accent,
        pale=pale,
        dark=dark,
        ink=ink,
        outline=rng.uniform(0.03, 0.08),
        texture=("plain", "gradient", "stripes", "dots")[
            int(rng.choice(4, p=(0.4, 0.3, 0.16, 0.14)))
        ],
        texture_angle=rng.uniform(0, np.pi),
        texture_pitch=rng.uniform(3.0, 7.0),
        build=tuple(rng.uniform(-1, 1, 4).tolist()),
    )


def sample_background(rng: np.random.Generator) -> Background:
    """Draw a backdrop: two to four colours, noise or a gradient, a pattern, clutter."""
    spread = rng.uniform(0.05, 0.35)
    value, saturation, hue = rng.uniform(0.2, 0.9), rng.uniform(0.0, 0.75), rng.random()
    colours = tuple(
        _rgb(
            hue + rng.normal(0, 0.09),
            saturation + rng.uniform(-0.2, 0.2),
            value + rng.uniform(-spread, spread),
        )
        for _ in range(int(rng.integers(2, 5)))
    )
    patterns: tuple[Pattern, ...] = ("none", "stripes", "checks", "blotches", "grid")
    return Background(
        seed=sample_seed(rng),
        colours=colours,
        pattern=patterns[int(rng.choice(5, p=(0.34, 0.16, 0.14, 0.22, 0.14)))],
        pattern_colour=sample_colour(rng, (0.0, 0.8), (0.15, 0.95)),
        pattern_strength=rng.uniform(0.12, 0.6),
        octaves=int(rng.integers(0, 6)),
        clutter=int(rng.integers(3, 26)) if rng.random() < 0.75 else 0,
    )


def sample_occluder(rng: np.random.Generator, width: float) -> Occluder:
    """Draw a foreground bar or blob somewhere in a frame of this width (its height is 1)."""
    bar = rng.random() < 0.6
    upright = np.pi / 2 if rng.random() < 0.6 else 0.0
    return Occluder(
        kind="bar" if bar else "blob",
        centre=(rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95)),
        angle=upright + rng.normal(0, 0.25),
        half_width=rng.uniform(0.012, 0.045) if bar else rng.uniform(0.06, 0.15),
        colour=sample_colour(rng),
        edge=sample_colour(rng, value=(0.0, 0.5)),
        seed=sample_seed(rng),
    )


def sample_camera(rng: np.random.Generator) -> Camera:
    """Draw drift, colour cast, flicker, tone curve, sensor noise and compression."""
    brightness = rng.uniform(0.78, 1.18)
    return Camera(
        drift=(rng.uniform(0, 0.045), rng.uniform(0, 0.035)),
        rate_hz=rng.uniform(0.05, 0.3),
        phase=rng.uniform(0, 2 * np.pi),
        gain=tuple((brightness * rng.uniform(0.88, 1.12, 3)).tolist()),
        flicker=rng.uniform(0, 0.06),
        gamma=rng.uniform(0.8, 1.25),
        noise=rng.uniform(0.0, 7.0),
        jpeg_quality=int(rng.integers(40, 96)) if rng.random() < 0.8 else None,
    )


def sample_noise(rng: np.random.Generator, level_dbfs: tuple[float, float]) -> BackgroundNoise:
    """Draw background noise with a level in a range."""
    return BackgroundNoise(
        seed=sample_seed(rng),
        colour=("white", "pink", "brown", "hum")[int(rng.integers(4))],
        level_dbfs=rng.uniform(*level_dbfs),
    )


def _contrasting(rng: np.random.Generator, against: float, least: float) -> Colour:
    """Draw a colour whose brightness differs by `least`; fall back to black or white."""
    for _ in range(12):
        colour = sample_colour(rng, (0.2, 1.0), (0.1, 1.0))
        if abs(luminance(colour) - against) >= least:
            return colour
    return (20, 20, 24) if against > 0.5 else (240, 240, 236)


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    channels = colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1))
    r, g, b = (round(255 * c) for c in channels)
    return r, g, b
