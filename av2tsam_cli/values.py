"""Values that stages pass to each other, with shapes, units and times."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
UInt16Array = npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.uint8 | np.uint16]
"""Pixels with 8 or 16 bits per channel; 255 and 65535 are white."""
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Origin = Literal["computed", "reused", "interpolated", "silent"]
"""Origin of a mask: computed by the network, reused from a frame that looks the same, interpolated
between frames, or empty because no source is heard."""
Progress = Callable[[int, int], None]
"""Called with the number of finished items and their total."""


def levels(pixels: Pixels) -> int:
    """Return the difference of pixel values that is one of 255 levels: 1, or 257 with 16 bits."""
    return 1 if pixels.dtype == np.uint8 else 257


@dataclass(frozen=True)
class VideoStream:
    """One video stream of a file, as it is displayed."""

    index: int
    """Position among all streams of the file."""
    codec: str
    """Short codec name, such as `h264`."""
    width: int
    """Pixels across, after rotation."""
    height: int
    """Pixels down, after rotation."""
    rotation: int
    """Counter-clockwise rotation for display in degrees: 0, 90, 180 or 270."""
    rate: Fraction | None
    """Average frames per second; None if unknown."""
    sample_aspect: Fraction
    """Width over height of one displayed (rotated) pixel."""
    frames: int
    """Number of frames according to the header; 0 if unknown."""
    start_s: float
    """Start of the stream on the file's own clock, in seconds."""
    duration_s: float | None
    """Duration in seconds; None if unknown."""
    pixel_format: str = "yuv420p"
    """FFmpeg's name of the format in which pixels are stored."""
    primaries: int = 1
    """Colour primaries, numbered as in libavutil/pixfmt.h."""


@dataclass(frozen=True)
class AudioStream:
    """One audio stream of a file."""

    index: int
    """Position among all streams of the file."""
    codec: str
    """Short codec name, such as `aac`."""
    rate_hz: int
    """Samples per second."""
    channels: int
    """Number of channels."""
    language: str | None
    """Language tag; None if it has none."""
    start_s: float
    """Start of the stream on the file's own clock, in seconds."""
    duration_s: float | None
    """Duration in seconds; None if unknown."""
    default: bool = False
    """Whether the file marks the stream as the one to play."""


@dataclass(frozen=True)
class MediaInfo:
    """The streams of a media file, without cover pictures, subtitles and data."""

    path: Path
    """The file."""
    container: str
    """FFmpeg's name of the container format."""
    video: tuple[VideoStream, ...]
    """Video streams, best first."""
    audio: tuple[AudioStream, ...]
    """Audio streams in file order."""
    duration_s: float | None
    """Seconds from the earliest start to the end; None if unknown."""
    may_jump: bool = False
    """Whether times can jump in this format, so that durations are only estimates."""
    version: tuple[int, int] | None = None
    """Size in bytes and modification time in nanoseconds, to detect changes; None for a URL."""


@dataclass(frozen=True)
class Damage:
    """The parts of a damaged file that could not be read."""

    truncated: bool = False
    """Whether the file ends too early."""
    missing_s: float | None = 0.0
    """Seconds that are missing at its end; None if unknown."""
    unreadable_parts: int = 0
    """Number of parts in the middle that are lost."""
    corrupted_video_packets: int = 0
    """Video packets that were skipped, or decoded as far as possible."""
    corrupted_audio_packets: int = 0
    """Audio packets that were skipped, which leaves silence, or copied unchanged."""
    incomplete_frames: int = 0
    """Frames that the decoder completed with parts of other frames."""


@dataclass(frozen=True)
class Frame:
    """One displayed video frame on the presentation clock."""

    rgb: UInt8Array = field(repr=False)
    """Pixels, uint8, (H, W, 3), RGB, rotated as displayed."""
    time_s: float
    """Seconds from the start of the presentation."""
    index: int
    """Index among the frames that are read."""
    shot: int = 0
    """Index of its shot."""
    duration_s: float | None = None
    """Seconds for which it is displayed; None if unknown."""
    deep: UInt16Array | None = field(default=None, repr=False)
    """The same pixels with 16 bits per channel, uint16, (H, W, 3), RGB, for results with more than
    8 bits; None for other results."""

    @property
    def pixels(self) -> Pixels:
        """The pixels with as many bits per channel as the result needs, (H, W, 3), RGB."""
        return self.rgb if self.deep is None else self.deep

    @property
    def nbytes(self) -> int:
        """Memory that the pixels take, in bytes."""
        return self.rgb.nbytes + (0 if self.deep is None else self.deep.nbytes)

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise ValueError(f"a frame is (H, W, 3) uint8, not {self.rgb.shape} {self.rgb.dtype}")


@dataclass(frozen=True)
class SourceMasks:
    """The masks of the named sources in one frame, without overlaps."""

    names: tuple[str, ...]
    """The sources, in the order of the labels; some may have no pixels."""
    labels: UInt8Array = field(repr=False)
    """uint8, (H, W): k where `names[k - 1]` is, 0 where there is no source."""
    scores: tuple[float, ...] = ()
    """Mean probability of each source's pixels, 0 to 1; 0 for a source without pixels."""
    numbers: tuple[int, ...] = ()
    """Number of each source in the whole video, from 1; by default, the same as its label."""

    def __post_init__(self) -> None:
        if not self.numbers:
            object.__setattr__(self, "numbers", tuple(range(1, len(self.names) + 1)))
        if self.labels.ndim != 2 or self.labels.dtype != np.uint8:
            raise ValueError(
                f"labels are (H, W) uint8, not {self.labels.shape} {self.labels.dtype}"
            )

    @cached_property
    def pixels(self) -> tuple[int, ...]:
        """Number of pixels of each source."""
        numbers = range(1, len(self.names) + 1)
        return tuple(int(np.count_nonzero(self.labels == number)) for number in numbers)

    @property
    def in_view(self) -> list[tuple[int, str]]:
        """The label and the name of each source that has pixels."""
        named = enumerate(zip(self.names, self.pixels, strict=True), start=1)
        return [(label, name) for label, (name, count) in named if count]

    def areas(self) -> list[tuple[str, float]]:
        """Return the name of each source in view, with its share of the frame, 0 to 1."""
        size = self.labels.size
        return [(name, self.pixels[label - 1] / size) for label, name in self.in_view]


@dataclass(frozen=True)
class NamedArea:
    """A named source that is heard in one frame."""

    name: str
    """The source."""
    number: int
    """Its number in the whole video, from 1."""
    area_px: int
    """Pixels of its mask; 0 if it is not in view."""
    score: float
    """Mean probability of its pixels, 0 to 1."""


@dataclass(frozen=True)
class FrameSummary:
    """The properties of a frame and its mask that tables and statistics need, without pixels."""

    index: int
    """See `Frame`."""
    time_s: float
    """See `Frame`."""
    duration_s: float | None
    """See `Frame`."""
    origin: Origin
    """Origin of the mask."""
    level_dbfs: float | None
    """See `MaskedFrame`."""
    size: tuple[int, int]
    """Height and width of the frame in pixels."""
    area_px: int
    """Pixels of the mask."""
    score: float
    """See `MaskedFrame`."""
    sources: tuple[NamedArea, ...] | None = None
    """The named sources; None if sources have no names."""

    @property
    def in_view(self) -> list[NamedArea]:
        """The named sources that are in view."""
        return [each for each in self.sources or () if each.area_px]

    @property
    def area(self) -> float:
        """Share of the frame that the mask covers, 0 to 1."""
        return self.area_px / prod(self.size)

    def named_areas(self) -> list[tuple[str, float]]:
        """Return the name of each source in view, with its share of the frame, 0 to 1."""
        return [(each.name, each.area_px / prod(self.size)) for each in self.in_view]

    def end_s(self, rate: Fraction | None) -> float:
        """Return the end of the frame in seconds; if its duration is unknown, `rate` is used."""
        return self.time_s + (self.duration_s or float(1 / rate if rate else 0))


@dataclass(frozen=True)
class MaskedFrame:
    """One frame with its mask."""

    frame: Frame
    """The frame: `frame.rgb` has its pixels, `frame.time_s` its time in seconds."""
    mask: BoolArray = field(repr=False)
    """The pixels that belong to a sound source, bool, (H, W)."""
    origin: Origin
    """Origin of the mask."""
    sources: SourceMasks | None = None
    """The mask of each named source; None if sources have no names."""
    score: float = 0.0
    """Mean probability of the mask's pixels, 0 to 1; 0 for an empty mask."""
    level_dbfs: float | None = None
    """RMS level of the sound around the frame, in dB relative to full scale; None without sound."""
    soft_mask: Callable[[], Float32Array] | None = field(default=None, repr=False)
    """Computes `probability`; None to use the mask itself, as 0 and 1."""
    soft_edges: UInt8Array | None = field(default=None, repr=False)
    """The mask with soft edges, uint8, (H, W); None if its edges are hard."""

    @property
    def alpha(self) -> UInt8Array:
        """Opacity of each pixel for a cutout, uint8, (H, W): 0 outside the mask, 255 inside.

        Pixels with an opacity above 127 belong to the mask. Soft edges need the option `refine`.
        """
        return self.mask * np.uint8(255) if self.soft_edges is None else self.soft_edges

    @cached_property
    def summary(self) -> FrameSummary:
        """The properties that tables and statistics need, without pixels."""
        named = None
        if (sources := self.sources) is not None:
            scores = sources.scores or (0.0,) * len(sources.names)
            areas = zip(sources.names, sources.numbers, sources.pixels, scores, strict=True)
            named = tuple(NamedArea(*each) for each in areas)
        return FrameSummary(
            index=self.frame.index,
            time_s=self.frame.time_s,
            duration_s=self.frame.duration_s,
            origin=self.origin,
            level_dbfs=self.level_dbfs,
            size=(self.mask.shape[0], self.mask.shape[1]),
            area_px=int(np.count_nonzero(self.mask)),
            score=self.score,
            sources=named,
        )

    @cached_property
    def probability(self) -> Float32Array:
        """Probability that each pixel belongs to a sound source, float32, (H, W), 0 to 1.

        Computed when it is first used, because enlarging takes time.
        """
        return self.mask.astype(np.float32) if self.soft_mask is None else self.soft_mask()


@dataclass(frozen=True)
class SoundEvent:
    """A time span in which a source is heard."""

    name: str
    """The source."""
    start_s: float
    """Seconds from the start of the presentation."""
    end_s: float
    """Seconds from the start of the presentation."""
    score: float
    """Mean probability, 0 to 1."""


@dataclass(frozen=True)
class HeardSource:
    """A source that is heard in a second of audio."""

    name: str
    """Its name in the vocabulary."""
    probability: float
    """Probability that it is heard, 0 to 1."""
    number: int = 0
    """Its number, from 1, in the order in which the sources of the video are first heard; 0 if
    unknown."""


def level_dbfs(samples: Float32Array) -> float:
    """Return the RMS level in dB relative to full scale; -inf for digital silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10.0 * float(np.log10(power)) if power > 0.0 else float("-inf")


@dataclass(frozen=True)
class AudioWindow:
    """One second of audio on the presentation clock."""

    samples: Float32Array = field(repr=False)
    """Mono samples, float32, (rate_hz,), in [-1, 1]; zeros where the stream has no samples."""
    index: int
    """Index of the window; window k is second k unless it has a `span_s`."""
    rate_hz: int
    """Samples per second."""
    sources: tuple[HeardSource, ...] | None = None
    """The sources that are heard in it, most likely first; None if they were not determined."""
    span_s: tuple[float, float] | None = None
    """Start and end of the frames that the window is used for, in seconds of the presentation; None
    for [index, index + 1)."""
    piece: int | None = None
    """Number of a piece of sound with constant sources, which several windows can share; None if
    unknown."""
    embedding: Float32Array | None = field(default=None, repr=False)
    """CLAP embedding of the sound, (A,); None if not computed yet."""
    context: Float32Array | None = field(default=None, repr=False)
    """Samples of its piece around it, (n,), like `samples`; None if unknown."""
    measured_dbfs: float | None = None
    """Its level, if its samples are left out; None to measure it."""

    @property
    def start_s(self) -> float:
        """Start of the frames that the window is used for, in seconds of the presentation."""
        return float(self.index) if self.span_s is None else self.span_s[0]

    @property
    def end_s(self) -> float:
        """End of the frames that the window is used for, in seconds of the presentation."""
        return float(self.index + 1) if self.span_s is None else self.span_s[1]

    def is_silent(self, below_dbfs: float | None) -> bool:
        """Return whether the level is below `below_dbfs`; with None, no window is silent."""
        return below_dbfs is not None and self.level_dbfs < below_dbfs

    @cached_property
    def level_dbfs(self) -> float:
        """RMS level in dB relative to full scale; -inf for digital silence."""
        return level_dbfs(self.samples) if self.measured_dbfs is None else self.measured_dbfs

    def without_samples(self, embedding: Float32Array | None) -> "AudioWindow":
        """Return the window with an embedding, and with the level instead of the samples."""
        return replace(
            self,
            samples=np.zeros(0, np.float32),
            context=None,
            embedding=embedding,
            measured_dbfs=self.level_dbfs,
        )
