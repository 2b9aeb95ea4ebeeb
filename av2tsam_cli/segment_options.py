"""The options of `segment_video` and `av2tsam segment`."""

import math
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, cast

from av2tsam_cli.errors import UsageError
from av2tsam_cli.files import content_id, place_file
from av2tsam_cli.options import (
    AllowPartial,
    AllowUrl,
    BatchSize,
    Option,
    Overwrite,
    Panel,
    VocabularyOptions,
    check_values,
    either,
    parse_or_off,
    parse_seconds,
)
from av2tsam_cli.stores import output_path

Hear = Literal["trained", "words"]
Timing = Literal["fine", "paper"]
Format = Literal[
    "video",
    "matte",
    "cutout",
    "masks",
    "overlays",
    "mattes",
    "cutouts",
    "named-masks",
    "indexed-masks",
    "coco",
    "yolo",
    "npz",
]
VIDEO_SUFFIXES: dict[Format, str] = {"video": ".mp4", "matte": ".mp4", "cutout": ".mov"}
"""The video formats, with their default suffixes. All other formats write a folder per input."""

Codec = Literal["h264", "h265", "vp9", "av1", "prores"]
PixelFormat = Literal["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]
"""FFmpeg's names of pixel formats: one colour sample per 4, 2 or 1 pixels, with 8 or 10 bits."""
Style = Literal["highlight", "outline", "blur", "spotlight", "mono", "heat", "side-by-side"]
Colour = tuple[int, int, int]

Rate = Fraction | float | Literal["auto", "all"]
"""Masks to compute per second; `all`, or `auto` for those that optical flow cannot predict."""

MAX_EDGE_PX = 500
"""Limit of `feather` and `grow`, in pixels."""
NAMED_FORMATS: tuple[Format, ...] = ("named-masks", "indexed-masks")
"""Formats that tell sources apart by their names."""
WORDS_ONLY = ("vocabulary", "name")
"""Options that only have an effect if sources are named."""
EVENT_SUFFIXES = (".json", ".csv", ".srt", ".vtt", ".txt", ".edl", ".otio")
"""Suffixes of event files, see `outputs.event_list`."""
SIDE_SUFFIXES: dict[str, tuple[str, ...]] = {
    "frames_csv": (".csv",),
    "events": EVENT_SUFFIXES,
    "preview": (".jpg", ".jpeg", ".png"),
    "report": (".html", ".htm"),
}
"""Options for additional output files, with their allowed suffixes. Files in a folder get the first
one."""

WITHOUT_INFLUENCE = frozenset(
    {"overwrite", "require_audio", "allow_partial", "allow_url", "batch_size", *SIDE_SUFFIXES}
)
"""Options that do not change the content of a main output."""

SILENCE_DBFS = -60.0
"""Level below which a second of audio counts as silent, in dB relative to full scale."""

REUSE_LEVELS = 1.0
"""Difference, in levels of 0 to 255, up to which two frames share a mask by default."""


def _parse_rate(text: str) -> Rate:
    if text in {"auto", "all"}:
        return cast(Literal["auto", "all"], text)
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"{text!r} is not a rate; use auto, all, or a number such as 5 or 30000/1001"
        ) from None


def parse_colour(text: str) -> Colour:
    """Convert a colour, such as #ff4096 or orange, to RGB from 0 to 255.

    Raises:
        ValueError: The text is not a colour.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise ValueError(
            f"{text!r} is not a colour; use a name such as orange, or a code such as #ff8800"
        ) from None
    return red, green, blue


@dataclass(frozen=True)
class LookOptions:
    """How overlays, mattes and cutouts look."""

    names: Annotated[
        bool, Option("draw names, and a colour per source, in overlays", panel=Panel.NAMES)
    ] = False
    """Whether overlays show the names of the sources, each in a colour of its own."""
    style: Annotated[
        Style, Option("what overlays do to the picture", panel=Panel.OUTPUT, default="highlight")
    ] = "highlight"
    """`highlight` to tint and outline the source and darken the rest, `outline` only to outline it,
    `blur`, `spotlight` or `mono` to blur, black out or decolour the rest, `heat` for the
    probability of each pixel, `side-by-side` for the frame beside its highlighted copy."""
    color: Annotated[
        Colour | None,
        Option("colour of the source", panel=Panel.LOOK, metavar="COLOR", parse=parse_colour),
    ] = None
    """RGB of the tint or outline, 0 to 255; None for pink. With `names`, each source has its own
    colour."""
    opacity: Annotated[
        float | None,
        Option("opacity of the colour, 0 to 1", panel=Panel.LOOK, metavar="SHARE"),
    ] = None
    """Opacity of the tint, from 0 to 1; None for the default of the style."""
    dim: Annotated[
        bool, Option("darken the rest of the picture", panel=Panel.LOOK, default="on")
    ] = True
    """Whether the rest of the picture is darkened, if the style does so."""
    feather: Annotated[
        float,
        Option(
            "soften the edges of mattes and cutouts by this many pixels on both sides",
            panel=Panel.LOOK,
            metavar="PX",
            default="",
        ),
    ] = 0.0
    """Pixels by which the edges of mattes and cutouts are softened, on both sides."""
    grow: Annotated[
        int,
        Option(
            "move the edges of mattes and cutouts outwards; inwards if negative",
            panel=Panel.LOOK,
            metavar="PX",
            default="",
        ),
    ] = 0
    """Pixels by which the edges of mattes and cutouts are moved outwards; negative for inwards."""
    hard: Annotated[bool, Option("give mattes and cutouts hard edges", panel=Panel.LOOK)] = False
    """Whether the pixels of mattes and cutouts are either opaque or transparent."""
    hud: Annotated[bool, Option("show time, sound level and names", panel=Panel.LOOK)] = False
    """Whether overlays show the time, the level of the sound and the names in a corner."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of range, or two options conflict.
        """
        check_values(self)
        if self.color is not None and self.names:
            raise UsageError("`color` has no effect with `names`; drop one of them")
        if self.color is not None and not all(0 <= value <= 255 for value in self.color):
            raise UsageError(f"`color` must be three numbers from 0 to 255, not {self.color}")
        limit = MAX_EDGE_PX
        if not 0 <= self.feather <= limit:
            raise UsageError(f"`feather` must be from 0 to {limit} pixels, not {self.feather:g}")
        if not -limit <= self.grow <= limit:
            raise UsageError(f"`grow` must be from -{limit} to {limit} pixels, not {self.grow}")
        if self.hard and self.feather:
            raise UsageError("`hard` and `feather` exclude each other; pass one of them")
        if self.opacity is not None and not 0 <= self.opacity <= 1:
            raise UsageError(f"`opacity` must be between 0 and 1, not {self.opacity:g}")


DEFAULT_LOOK = LookOptions()


@dataclass(frozen=True)
class SegmentOptions(LookOptions, VocabularyOptions):
    """What to segment in a video and how. Values are checked on construction."""

    format: Annotated[
        Format | None,
        Option(
            "what to write for each input if --out is a folder",
            panel=Panel.OUTPUT,
            short="-f",
            default="",
        ),
    ] = None
    """`video` for an overlay video, `matte` for a grey video of the opacity, `cutout` for a video
    with transparency; `masks`, `overlays`, `mattes` and `cutouts` for PNGs, `named-masks` for masks
    of each name, `indexed-masks` for palette PNGs of the names; `coco`, `yolo` and `npz` for data
    sets. None for an overlay video."""
    text: Annotated[
        str | None,
        Option(
            "segment what a phrase names, not the sound source",
            panel=Panel.OUTPUT,
            metavar="PHRASE",
        ),
    ] = None
    """What to segment, such as "the dog"; None for the sound source."""
    hear: Annotated[
        Hear | None,
        Option(
            "find sources as the model was trained to, or name what is heard",
            panel=Panel.NAMES,
            default="",
        ),
    ] = None
    """`trained` for the audio part of the model, `words` to name what is heard and segment each
    name; None for `words` if another option needs names, else for `trained` if the model was
    trained for this."""
    frames_csv: Annotated[
        Path | None,
        Option(
            "also write a table of the frames",
            panel=Panel.OUTPUT,
            metavar="PATH",
            parse=output_path,
        ),
    ] = None
    """A .csv file for a table of the frames, or a folder for files named after the inputs."""
    events: Annotated[
        Path | None,
        Option(
            "also write when sources are seen: .json, .csv, .srt, .vtt, .txt (Audacity), .edl, "
            ".otio",
            panel=Panel.OUTPUT,
            metavar="PATH",
            parse=output_path,
        ),
    ] = None
    """A file for the start and end times of the masks of each source, in the format of its suffix;
    or a folder for .json files named after the inputs."""
    preview: Annotated[
        Path | None,
        Option(
            "also write a contact sheet: .jpg or .png",
            panel=Panel.OUTPUT,
            metavar="PATH",
            parse=output_path,
        ),
    ] = None
    """A .jpg or .png file for a picture of up to twelve frames with their overlays, or a folder for
    .jpg files named after the inputs."""
    report: Annotated[
        Path | None,
        Option(
            "also write a page with the video and a timeline",
            panel=Panel.OUTPUT,
            metavar="PATH",
            parse=output_path,
        ),
    ] = None
    """An .html file for a page with the overlay video, a timeline, the settings and the model, or a
    folder for files named after the inputs."""
    overwrite: Overwrite = False
    """Whether existing outputs are replaced."""
    start: Annotated[
        float,
        Option(
            "where to start, in seconds or [HH:]MM:SS",
            panel=Panel.RANGE,
            metavar="TIME",
            parse=parse_seconds,
            default="",
        ),
    ] = 0.0
    """Where to start, in seconds from the beginning of the video."""
    end: Annotated[
        float | None,
        Option("where to stop", panel=Panel.RANGE, metavar="TIME", parse=parse_seconds),
    ] = None
    """Where to stop, in seconds from the beginning of the video; None for its end."""
    audio_stream: Annotated[
        int | str | None,
        Option(
            "audio stream: 0 for the first, or a language",
            panel=Panel.RANGE,
            metavar="N|LANG",
            parse=str,
        ),
    ] = None
    """Position among the audio streams, or a language; None for the default stream. With `text`, it
    only selects the sound of an overlay video."""
    require_audio: Annotated[
        bool,
        Option("fail if there is no audio", panel=Panel.RANGE),
    ] = False
    """Whether a video without an audio stream is an error."""
    allow_partial: AllowPartial = False
    """Whether to use the readable part of a truncated or damaged video, instead of failing."""
    allow_url: AllowUrl = False
    """Whether to open web URLs directly, without a copy, and the files and URLs in playlists."""
    fps: Annotated[
        Rate | None,
        Option(
            "masks to compute per second; auto: those that flow cannot predict",
            panel=Panel.ADVANCED,
            metavar="RATE|auto|all",
            parse=_parse_rate,
            default="auto for large models on CPUs, else all",
        ),
    ] = None
    """Masks to compute per second; `auto` to compute those that optical flow cannot predict; `all`
    to compute every mask. Optical flow fills in the others. None: `auto` for a full-size model on a
    CPU, else `all`."""
    timing: Annotated[
        Timing,
        Option("find when sources change, or use whole seconds", panel=Panel.ADVANCED),
    ] = "fine"
    """`fine` to find when sound sources start and stop; `paper` to use whole seconds of sound, as
    in the paper."""
    threshold: Annotated[
        float,
        Option(
            "minimum probability of a mask's pixels",
            panel=Panel.ADVANCED,
            metavar="P",
        ),
    ] = 0.5
    """Probability from which a pixel belongs to the mask, between 0 and 1."""
    silence_dbfs: Annotated[
        float | None,
        Option(
            "level below which sound counts as silence, or 'off'",
            panel=Panel.ADVANCED,
            metavar="LEVEL",
            parse=parse_or_off,
        ),
    ] = SILENCE_DBFS
    """RMS level, in dB relative to full scale, below which sound counts as silence and gets empty
    masks. None switches this off."""
    reuse: Annotated[
        float | None,
        Option(
            "reuse a mask while the picture changes by at most this, 0 to 255, or 'off'",
            panel=Panel.ADVANCED,
            metavar="LEVELS",
            parse=parse_or_off,
        ),
    ] = REUSE_LEVELS
    """Largest difference between frames that share a mask, in levels of 0 to 255, see
    `timeline.motion.difference`; they must also be close in time. None switches this off."""
    smooth: Annotated[
        bool, Option("keep masks steady from frame to frame", panel=Panel.ADVANCED, default="on")
    ] = True
    """Whether masks are smoothed over time, and changes that last at most three frames are removed;
    see `timeline.steady`."""
    refine: Annotated[
        bool,
        Option("align mask edges with edges in the picture", panel=Panel.ADVANCED, default="on"),
    ] = True
    """Whether the edges of masks are aligned with edges in the picture; see `refine`."""
    codec: Annotated[
        Codec | None,
        Option(
            "codec of a video",
            panel=Panel.ENCODING,
            default="vp9 for .webm, else h264",
        ),
    ] = None
    """Codec of the written video; None for `vp9` in WebM, else for `h264`."""
    crf: Annotated[
        int | None,
        Option(
            "quality of a video: lower is better and larger",
            panel=Panel.ENCODING,
            metavar="N",
            default="18 for h264, 20 for h265, 24 for vp9, 28 for av1",
            minimum=0,
        ),
    ] = None
    """Constant rate factor of the written video, from 0 to 51 for H.264 and H.265 and to 63 for VP9
    and AV1; None for one at which the loss is hard to see."""
    pix_fmt: Annotated[
        PixelFormat | None,
        Option(
            "how pixels are stored in a video",
            panel=Panel.ENCODING,
            default="10 bits and 4:2:2 are kept, else yuv420p",
        ),
    ] = None
    """Pixel format of the written video; None for the one nearest to the source's that the codec
    supports: 10 bits and 4:2:2 are kept, everything else is stored as `yuv420p`."""
    batch_size: BatchSize = None
    """Frames per forward pass; None for a number that suits the device and the model."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is out of range, or two options conflict.
        """
        super().__post_init__()
        if self.text is not None:
            self._check_text(self.text)
        elif self.hear == "trained" and self._needs_names:
            raise UsageError(f"{self._needs_names[0]} needs names; set `hear` to words")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise UsageError(f"`start` must be 0 or later, not {self.start:g}")
        if self.end is not None and not self.end > self.start:
            raise UsageError(
                f"`end` must be later than `start` ({self.end:g} s is not after {self.start:g} s)"
            )
        if isinstance(self.fps, str) and self.fps not in {"auto", "all"}:
            raise UsageError(f"`fps` must be a number, auto or all, not {self.fps!r}")
        if not isinstance(self.fps, str | None) and self.fps <= 0:
            raise UsageError(f"`fps` must be above 0, not {self.fps}")
        if not 0 < self.threshold < 1:
            raise UsageError(f"`threshold` must be between 0 and 1, not {self.threshold:g}")
        if self.silence_dbfs is not None and math.isnan(self.silence_dbfs):
            raise UsageError("`silence_dbfs` must be a level such as -60, not nan")
        if self.reuse is not None and not 0 <= self.reuse <= 255:
            raise UsageError(f"`reuse` must be between 0 and 255, not {self.reuse:g}")

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise UsageError("`text` is empty; describe what to segment, such as 'the dog'")
        if self.require_audio:
            raise UsageError("`require_audio` has no effect with `text`; drop one of them")
        if self.silence_dbfs != SILENCE_DBFS:
            raise UsageError("`silence_dbfs` has no effect with `text`; drop one of them")
        if self.timing != "fine":
            raise UsageError("`timing` has no effect with `text`; drop one of them")
        for option in ("hear", *WORDS_ONLY):
            if getattr(self, option):
                raise UsageError(f"`{option}` has no effect with `text`; drop one of them")

    def sides(self, name: Path) -> dict[str, Path]:
        """Return the additional output files of an input, by option.

        Args:
            name: Path of the main output in the output folder, without a suffix.

        Raises:
            UsageError: The suffix of a file is not supported by its option.
        """
        sides = {}
        for option, suffixes in SIDE_SUFFIXES.items():
            path = getattr(self, option)
            if path is None:
                continue
            sides[option] = place_file(path, name, suffixes)
            if sides[option] != path and path.suffix and not path.is_dir():
                raise UsageError(
                    f"{path}: `{option}` cannot write {path.suffix} files; use {either(suffixes)}, "
                    "or the name of a folder"
                )
        return sides

    def influences(self, kind: Format) -> dict[str, object]:
        """Return the options that change the main output and are not at their defaults.

        Args:
            kind: The format of the main output.

        Raises:
            OSError: The vocabulary cannot be read.
        """
        given = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in WITHOUT_INFLUENCE and getattr(self, each.name) != each.default
        }
        if self.vocabulary is not None:
            given["vocabulary"] = content_id(self.vocabulary)
        return {**given, "format": kind}

    @property
    def use(self) -> Literal["trained", "words", "text"] | None:
        """What the model is used for; None for the use that it was trained for."""
        if self.text is not None:
            return "text"
        return self.hear or ("words" if self._needs_names else None)

    @property
    def _needs_names(self) -> list[str]:
        """The given options that need named sources."""
        given = [f"`{option}`" for option in ("names", *WORDS_ONLY) if getattr(self, option)]
        return given + [f"`format` {self.format}"] * (self.format in NAMED_FORMATS)
