"""What a scene is made of. Lengths are in units of the frame's shorter side, y points down."""

from dataclasses import dataclass
from typing import Literal

Colour = tuple[int, int, int]
"""Red, green, blue in 0..255."""
Texture = Literal["plain", "gradient", "stripes", "dots"]
Pattern = Literal["none", "stripes", "checks", "blotches", "grid"]
Subset = Literal["s4", "ms3"]
Pool = Literal["train", "val", "test", "samples"]
Seconds = tuple[bool, ...]
"""One flag per whole second of the scene: is it sounding there?"""


@dataclass(frozen=True)
class Category:
    """A kind of object with a look and a sound of its own."""

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
    """Parts that must stand out from the body."""
    pale: Colour
    """Light details: eyes, dials, windows."""
    dark: Colour
    """Dark details: pupils, mouths, tyres."""
    ink: Colour
    """Outline."""
    outline: float
    """Outline's thickness in units of half the object's extent."""
    texture: Texture
    """Texture of the body."""
    texture_angle: float
    """Direction of the texture in radians."""
    texture_pitch: float
    """Stripes or dots across half the object's extent."""
    build: tuple[float, float, float, float]
    """Proportions of the drawing, each in [-1, 1]; their meaning is the category's own."""


@dataclass(frozen=True)
class Motion:
    """Where an object is over time: a pose plus drift, sway, bounce, rocking and pulsing."""

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
    """Amplitude of a breathing change of size, as a share of the size."""
    rate_hz: float
    """Rate of sway, bounce, rocking and pulsing."""
    phase: float
    """Phase of these in radians."""


@dataclass(frozen=True)
class Voice:
    """What one source sounds like."""

    category: str
    """Name of the category whose sound it is."""
    seed: int
    """Seed of pitch, rhythm and timbre."""
    level_dbfs: float
    """Root-mean-square level while it sounds."""
    seconds: Seconds
    """When it sounds."""


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

    @property
    def seconds(self) -> Seconds | None:
        """When it sounds; None for a silent distractor."""
        return self.voice.seconds if self.voice else None


@dataclass(frozen=True)
class Occluder:
    """Something in the foreground that is no object: a bar across the frame or a blob."""

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
    """A textured backdrop with clutter; its details are drawn from the seed."""

    seed: int
    """Seed of everything that is not listed here."""
    colours: tuple[Colour, ...]
    """Two to four colours between which the noise moves."""
    pattern: Pattern
    """Pattern laid over the noise."""
    pattern_colour: Colour
    """Colour of the pattern."""
    pattern_strength: float
    """Opacity of the pattern."""
    octaves: int
    """Octaves of value noise; 0 is a plain gradient."""
    clutter: int
    """Small shapes that are no objects."""


@dataclass(frozen=True)
class Camera:
    """Drift of the view and what the sensor does to the light."""

    drift: tuple[float, float]
    """Amplitudes (x, y) of a slow movement of everything."""
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
    """Sound that belongs to no object."""

    seed: int
    """Seed of the noise."""
    colour: Literal["white", "pink", "brown", "hum"]
    """Its spectrum."""
    level_dbfs: float
    """Root-mean-square level."""


@dataclass(frozen=True)
class Scene:
    """Everything that was sampled for one clip; the picture and the sound follow from it."""

    duration_s: int
    """Whole seconds."""
    aspect: tuple[int, int]
    """Width to height; the width is never the smaller one."""
    background: Background
    """Backdrop."""
    instances: tuple[Instance, ...]
    """Objects from back to front; no category occurs twice."""
    occluders: tuple[Occluder, ...]
    """Foreground."""
    camera: Camera
    """View and sensor."""
    heard: Voice | None
    """A source that is not in the picture."""
    noise: BackgroundNoise | None
    """Background noise; None in a clean recording."""

    @property
    def width(self) -> float:
        """Width in units of the shorter side."""
        return self.aspect[0] / self.aspect[1]

    @property
    def voices(self) -> tuple[Voice, ...]:
        """Every source of the sound track, in view or not."""
        seen = tuple(i.voice for i in self.instances if i.voice)
        return (*seen, self.heard) if self.heard else seen

    def sounding(self, second: int) -> tuple[int, ...]:
        """Returns the positions of the instances that sound in the window [second, second + 1)."""
        return tuple(
            position
            for position, instance in enumerate(self.instances)
            if instance.voice and instance.voice.seconds[second]
        )
