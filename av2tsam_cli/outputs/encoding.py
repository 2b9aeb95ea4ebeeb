"""Choose how videos are encoded: codec, container, pixel format and settings."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from types import MappingProxyType

from av.video.format import VideoFormat

from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import either
from av2tsam_cli.segment_options import Codec, PixelFormat

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's name of the container format for each suffix."""
FOR_ALL_PLAYERS = "yuv420p"
"""The pixel format that all players support."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoding:
    """How the pictures of a video are encoded."""

    encoder: str
    """FFmpeg's name of the encoder."""
    pixel_format: str
    """FFmpeg's name of the pixel format."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of the encoder."""
    tag: str | None = None
    """Tag of the codec in an MP4 or MOV, if players need another one than FFmpeg's default."""
    odd_sizes: bool = False
    """Whether width and height can be odd despite chroma subsampling."""
    square_pixels: bool = False
    """Whether pixels must be square."""

    @property
    def bits(self) -> int:
        """Bits per channel."""
        return bits_per_channel(self.pixel_format)

    def padded(self, width: int, height: int) -> tuple[int, int]:
        """Return the size, in pixels, to which a picture must be padded."""
        if self.odd_sizes:
            return width, height
        kind = VideoFormat(self.pixel_format, 2, 2)
        across, down = 2 // kind.chroma_width(), 2 // kind.chroma_height()
        return ceil(width / across) * across, ceil(height / down) * down


@dataclass(frozen=True)
class _Codec:
    """A codec with its default settings."""

    encoder: str
    """FFmpeg's name of the encoder."""
    suffixes: tuple[str, ...]
    """Suffixes of the containers in which players support it."""
    pixel_formats: tuple[PixelFormat, ...]
    """The supported pixel formats; the first one is the default."""
    options: Mapping[str, str]
    """Options of the encoder."""
    crf: int | None = None
    """Default constant rate factor: lower is better and larger; None if the codec has none."""
    worst_crf: int = 0
    """The highest constant rate factor."""
    tag: str | None = None
    """See `Encoding.tag`."""
    vp9: bool = False
    """Whether sizes may be odd and pixels must be square."""
    with_alpha: str | None = None
    """Its pixel format with transparency; None if it has none."""


_YUV: tuple[PixelFormat, ...] = (
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p10le",
)
CODECS: Mapping[Codec, _Codec] = MappingProxyType(
    {
        # Visually lossless; 3 ms of CPU time per frame at 640x360.
        "h264": _Codec("libx264", (".mp4", ".mov", ".mkv"), _YUV, {"preset": "veryfast"}, 18, 51),
        "h265": _Codec(
            "libx265",
            (".mp4", ".mov", ".mkv"),
            _YUV,
            # Parts of a video can be joined without `info`, which differs between computers.
            {"preset": "veryfast", "x265-params": "log-level=error:info=0"},
            20,
            51,
            tag="hvc1",  # the only one that Apple's players support
        ),
        # As fast as H.264 above; deadline "good" takes six times as long.
        "vp9": _Codec(
            "libvpx-vp9",
            (".webm", ".mkv", ".mp4"),
            ("yuv420p", "yuv422p", "yuv444p"),
            {"deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
            24,
            63,
            vp9=True,
            with_alpha="yuva420p",
        ),
        "av1": _Codec(
            "libsvtav1",
            (".mp4", ".mkv", ".webm"),
            ("yuv420p", "yuv420p10le"),
            {"preset": "10"},
            28,
            63,
        ),
        "prores": _Codec(
            "prores_aw",  # a quarter of the time of prores_ks
            (".mov", ".mkv"),
            ("yuv422p10le", "yuv444p10le"),
            {"vendor": "apl0"},  # some editors accept only Apple's
            with_alpha="yuva444p10le",
        ),
    }
)
"""The supported codecs with their settings."""


def choose_encoding(
    target: Path,
    source_format: str,
    *,
    alpha: bool = False,
    codec: Codec | None = None,
    crf: int | None = None,
    pix_fmt: PixelFormat | None = None,
) -> Encoding:
    """Return how a video is encoded.

    Args:
        target: The file; its suffix is one of `CONTAINERS`.
        source_format: Pixel format of the source. 10 bits and 4:2:2 are kept if the codec supports
            them.
        alpha: Whether pixels have an opacity.
        codec: The codec; None for VP9 in WebM, else for H.264, or for ProRes with `alpha`.
        crf: Constant rate factor; None for the codec's default.
        pix_fmt: Pixel format; None for the one nearest to the source's.

    Raises:
        UsageError: The container does not hold the codec, or the codec has no such setting.
    """
    suffix = target.suffix.lower()
    name: Codec = codec or ("vp9" if suffix == ".webm" else "prores" if alpha else "h264")
    chosen = CODECS[name]
    if alpha and (suffix == ".mp4" or chosen.with_alpha is None):
        what = ".mp4" if suffix == ".mp4" else f"`codec` {name}"
        raise UsageError(
            f"{target}: {what} holds no transparency; end the name in .mov for ProRes or in .webm "
            "for VP9"
        )
    if suffix not in chosen.suffixes:
        raise UsageError(
            f"{target}: {suffix} does not hold {name}; "
            f"end the name in {either(chosen.suffixes)}, or choose another `codec`"
        )
    if alpha and pix_fmt is not None:
        raise UsageError(
            f"`pix_fmt` has no effect on cutouts, which are {chosen.with_alpha}; drop it"
        )
    pixel_format = pix_fmt or _nearest(chosen.pixel_formats, source_format)
    if alpha and chosen.with_alpha is not None:
        pixel_format = chosen.with_alpha
    elif pix_fmt is not None and pix_fmt not in chosen.pixel_formats:
        raise UsageError(
            f"`pix_fmt` {pix_fmt} is not for {name}; use {either(chosen.pixel_formats)}"
        )
    elif pix_fmt is None and name == "h264" and pixel_format != FOR_ALL_PLAYERS:
        log.warning(
            "%s: %s as in the source, which not all players support; `pix_fmt` %s is for all",
            target, pixel_format, FOR_ALL_PLAYERS,
        )  # fmt: skip
    return Encoding(
        encoder=chosen.encoder,
        pixel_format=pixel_format,
        options=_options(name, crf, pixel_format),
        tag=chosen.tag if suffix != ".mkv" else None,
        odd_sizes=chosen.vp9,
        square_pixels=chosen.vp9,
    )


def _options(name: Codec, crf: int | None, pixel_format: str) -> Mapping[str, str]:
    """Return the options of a codec's encoder.

    Raises:
        UsageError: The codec has no such quality.
    """
    chosen = CODECS[name]
    if crf is not None and chosen.crf is None:
        raise UsageError(f"`crf` has no effect with `codec` {name}; drop one of them")
    if crf is not None and not 0 <= crf <= chosen.worst_crf:
        raise UsageError(f"`crf` must be from 0 to {chosen.worst_crf} for {name}, not {crf}")
    quality = chosen.crf if crf is None else crf
    options = dict(chosen.options) if quality is None else {**chosen.options, "crf": str(quality)}
    if name == "prores":
        options["profile"] = "4" if "444" in pixel_format else "3"  # 4444 and HQ
    return options


def bits_per_channel(pixel_format: str) -> int:
    """Return the bits of the widest channel of a pixel format."""
    return max(component.bits for component in VideoFormat(pixel_format).components)


def _nearest(offered: tuple[PixelFormat, ...], source: str) -> str:
    """Return the pixel format that keeps most of a source.

    Pictures of 8 bits are stored in 4:2:0, which all players support, unless they are in 4:2:2 for
    editing; full-range 4:2:2 is what webcams and small cameras record.
    """
    kind = VideoFormat(source, 2, 2)
    depth = "10le" if bits_per_channel(source) > 8 else ""
    sampling = {(1, 1): "420", (1, 2): "422"}.get(
        (kind.chroma_width(), kind.chroma_height()), "444"
    )
    if len(kind.components) < 3 or not (depth or source.startswith("yuv422p")):
        sampling = "420"
    wanted = (f"yuv{sampling}p{depth}", f"yuv420p{depth}")
    return next((each for each in wanted if each in offered), offered[0])
