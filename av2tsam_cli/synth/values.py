"""The parts of a scene. Lengths are in units of the frame's shorter side; y points down."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Colour = tuple[int, int, int]
"""Red, green, blue in 0..255."""
Texture = Literal["plain", "gradient", "stripes", "dots"]
Pattern = Literal["none", "stripes", "checks", "blotches", "grid"]
NoiseColour = Literal["white", "pink", "brown", "hum"]
SynthSubset = Literal["s4", "ms3"]
"""The subsets of AVSBench that can be generated."""
SeedPool = Literal["train", "val", "test", "samples"]
"""What scenes are used for. Two pools never contain the same scene, whatever the seeds."""
Turns = tuple[tuple[float, float], ...]
"""Start and end in seconds of each stretch in which a source sounds, in order."""


@dataclass(frozen=True)
class Category:
    """A kind of object, with its own look and sound."""

    name: str
    """Short name, as in AVSBench's folders."""
    noun: str
    """The object in words, for captions: `the dog`."""


@dataclass(frozen=True)
class Appearance:
    """How one instance of a category looks."""

    body: Colour
    """Main colour."""
    body_variant: Colour
    """The texture's second colour, near the main one."""
    accent: Colour
    """Colour of parts that stand out from the body."""
    pale: Colour
    """Light details: eyes, dials, windows."""
    dark: Colour
    """Dark details: pupils, mouths, tyres."""
    ink: Colour
    """Outline."""
    outline: float
    """Thickness of the outline in units of half the object's extent."""
    texture: Texture
    """Texture of the body."""
    texture_angle: float
    """Direction of the texture in radians."""
    texture_pitch: float
    """Stripes or dots across half the object's extent."""
    build: tuple[float, float, float, float]
    """Proportions of the drawing, each in [-1, 1]; their meaning depends on the category."""


@dataclass(frozen=True)
class Motion:
    """The position of an object over time: a pose plus drift, sway, bounce, rocking and pulsing."""

    centre: tuple[float, float]
    """Position (x, y) in the middle of the scene."""
    drift: tuple[float, float]
    """Steady movement (x, y) per second."""
    sway: tuple[float, float]
    """Amplitudes (x, y) of a sine movement."""
    bounce: float
    """Height of repeated hops."""
    angle: float
    """Rotation in radians, clockwise on the screen."""
    rock: float
    """Amplitude of a rotation back and forth, radians."""
    pulse: float
    """Amplitude of a periodic change of size, as a share of the size."""
    rate_hz: float
    """Rate of sway, bounce, rocking and pulsing."""
    phase: float
    """Phase of these in radians."""


@dataclass(frozen=True)
class Voice:
    """The sound of one source."""

    category: str
    """Name of the category."""
    seed: int
    """Seed of pitch, rhythm and timbre."""
    level_dbfs: float
    """Root-mean-square level while the source sounds."""
    turns: Turns
    """When the source sounds: half-open stretches that increase and do not overlap."""
    aligned: bool = False
    """Whether each turn begins and ends with something to hear. If not, the turns are cut out of a
    sound that goes on without them, so that a bark may come a moment after its turn begins."""

    def __post_init__(self) -> None:
        """Check that the turns increase.

        Raises:
            ValueError: They do not.
        """
        times = [time for turn in self.turns for time in turn]
        if any(later <= time for time, later in pairwise(times)):
            raise ValueError(f"turns: {self.turns} must increase without touching or overlapping")

    def sounds_at(self, time_s: float) -> bool:
        """Return whether the source sounds at a time in seconds."""
        return any(start <= time_s < stop for start, stop in self.turns)


@dataclass(frozen=True)
class Instance:
    """One object in the picture."""

    category: str
    """Name of its category."""
    appearance: Appearance
    """Colours and build."""
    motion: Motion
    """Its path."""
    size: float
    """Largest extent."""
    stretch: float
    """Horizontal over vertical scale, near 1."""
    shear: float
    """Horizontal shear."""
    flip: bool
    """Mirrored left to right."""
    voice: Voice | None
    """Its sound; None for a silent distractor."""


@dataclass(frozen=True)
class Occluder:
    """A foreground shape that hides objects: a bar across the frame, or a blob."""

    kind: Literal["bar", "blob"]
    """Its shape."""
    centre: tuple[float, float]
    """A point of the bar, or the blob's centre, at the start."""
    angle: float
    """Direction of the bar in radians."""
    half_width: float
    """Half the bar's thickness, or the blob's radius."""
    colour: Colour
    """Fill."""
    edge: Colour
    """Border."""
    seed: int
    """Seed of the blob's outline."""


@dataclass(frozen=True)
class Background:
    """A textured backdrop with clutter; its details follow from the seed."""

    seed: int
    """Seed of all details that are not listed here."""
    colours: tuple[Colour, ...]
    """Two to four colours that the noise blends."""
    pattern: Pattern
    """Pattern laid over the noise."""
    pattern_colour: Colour
    """Colour of the pattern."""
    pattern_strength: float
    """Opacity of the pattern."""
    octaves: int
    """Octaves of value noise; 0 is a plain gradient."""
    clutter: int
    """Number of small shapes that are not objects."""


@dataclass(frozen=True)
class Camera:
    """Drift of the view, and the sensor's tone, noise and compression."""

    drift: tuple[float, float]
    """Amplitudes (x, y) of a slow movement of the whole picture."""
    rate_hz: float
    """Rate of that movement."""
    phase: float
    """Its phase in radians."""
    gain: tuple[float, float, float]
    """Factors on red, green and blue."""
    flicker: float
    """Amplitude of slow changes of brightness, as a share."""
    gamma: float
    """Exponent of the tone curve."""
    noise: float
    """Standard deviation of sensor noise in grey levels."""
    jpeg_quality: int | None
    """Quality of a JPEG round trip; None leaves the frame as drawn."""


@dataclass(frozen=True)
class BackgroundNoise:
    """Sound that does not come from an object."""

    seed: int
    """Seed of the noise."""
    colour: NoiseColour
    """Its spectrum."""
    level_dbfs: float
    """Root-mean-square level."""


@dataclass(frozen=True)
class Scene:
    """Everything that is sampled for one clip; the picture and the sound follow from it."""

    duration_s: int
    """Whole seconds."""
    aspect: tuple[int, int]
    """Width to height; the width is never smaller than the height."""
    background: Background
    """Backdrop."""
    instances: tuple[Instance, ...]
    """Objects from back to front; no category occurs twice."""
    occluders: tuple[Occluder, ...]
    """Foreground."""
    camera: Camera
    """View and sensor."""
    off_screen: Voice | None
    """A source that is not in the picture; None if there is none."""
    noise: BackgroundNoise | None
    """Background noise; None in a clean recording."""

    @property
    def width(self) -> float:
        """Width in units of the shorter side."""
        return self.aspect[0] / self.aspect[1]

    @property
    def voices(self) -> tuple[Voice, ...]:
        """All sources of the sound track, in view or off screen."""
        in_view = tuple(i.voice for i in self.instances if i.voice)
        return (*in_view, self.off_screen) if self.off_screen else in_view

    def sounding(self, time_s: float) -> tuple[int, ...]:
        """Return the positions of the instances that sound at a time in seconds."""
        return tuple(
            position
            for position, instance in enumerate(self.instances)
            if instance.voice and instance.voice.sounds_at(time_s)
        )
