"""Awkward media, each from the file to its masks and to the overlay video that is read back.

Every clip has a white top left quarter and, unless a case says otherwise, twelve frames at 25 per
second and a tone from 0.2 to 0.4 s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from av.stream import Disposition

from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.media.audio import choose_audio, read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.pipeline import iter_masks, segment_video

from ..conftest import tone, write_clip
from .test_probe import add_exif

Clip = dict[str, Any]
Span = tuple[float, float]
Float32Array = npt.NDArray[np.float32]
RATE_HZ = 16_000
QUIET_DBFS = -50.0
TONE: tuple[Span, ...] = ((0.2, 0.4),)
FRAMES = 12
PRIMING_S = 0.025
"""What AAC begins with in formats that cannot mark it as not to be played."""
TICK = Fraction(1, 25)


def sounds(
    spans: Sequence[Span] = TONE, seconds: float = FRAMES / 25, channels: int = 1, **what: Any
) -> Clip:
    """A sound that is heard in the given seconds, in all channels."""
    rate_hz = what.get("rate_hz", 48_000)
    samples = tone(seconds, rate_hz, channels=channels)
    time_s = np.arange(samples.shape[1]) / rate_hz
    heard = np.any([(begin <= time_s) & (time_s < end) for begin, end in spans], axis=0)
    return {"samples": samples * heard, **what}


def evenly(rate: float | Fraction, count: int = FRAMES) -> list[float]:
    return [float(k / rate) for k in range(count)]


@dataclass(frozen=True)
class Case:
    """One clip and what must come out of it."""

    name: str
    clip: Clip = field(default_factory=dict)
    """Arguments of `write_clip`."""
    file: str = "clip.mp4"
    edit: Callable[[Path], Path] | None = None
    """What is done with the file."""
    times_s: Sequence[float] = field(default_factory=lambda: evenly(25))
    size: tuple[int, int] = (64, 48)
    """Width and height as displayed."""
    aspect: Fraction = Fraction(1)
    """Width over height of a displayed pixel."""
    white: tuple[int, int] | None = (0, 0)
    """Where the white quarter is displayed: top or bottom, left or right."""
    heard: tuple[Span, ...] = TONE
    out: str = "out.mp4"
    slack_s: float = 0.002
    """How far times may be off: the ticks of some formats are coarse."""


def rates() -> list[Case]:
    """Frame rates from 0.5 to 240, of film and television, and uneven ones."""
    cases = []
    for rate in (
        *(Fraction(1, 2), 1, 5, 12, 15, 24, 30, 48, 50, 60, 100, 120, 240),
        *(Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60_000, 1001)),
        Fraction(120_000, 1001),
    ):
        count = FRAMES if rate >= 5 else 3
        times_s, tick = evenly(rate, count), 1 / (Fraction(rate) * 1001)
        sound = sounds(seconds=max(count / rate, 0.48))
        clip = {"times_s": times_s, "rate": rate, "tick": tick, "sounds": [sound]}
        cases.append(Case(f"{float(rate):.6g} per second", clip, times_s=times_s))
    for name, times_s in {
        "jitter": [0, 0.037, 0.081, 0.12, 0.158, 0.203, 0.24, 0.277, 0.32],
        "a gap between frames": [0, 0.04, 0.08, 1.6, 1.64, 1.68],
        "bursts": [0, 0.001, 0.002, 0.2, 0.201, 0.202, 0.5],
    }.items():
        cases.append(Case(name, {"times_s": times_s, "sounds": [sounds()]}, times_s=times_s))
    return cases


def shapes() -> list[Case]:
    """Rotation, mirroring, pixels that are not square, and sizes."""
    cases = []
    for rotation, mirrored, white in [
        *((90, False, (1, 0)), (180, False, (1, 1)), (270, False, (0, 1))),
        *((0, True, (0, 1)), (90, True, (1, 1)), (180, True, (1, 0))),
    ]:
        size = (48, 64) if rotation in {90, 270} else (64, 48)
        clip = {"rotation": rotation, "mirrored": mirrored}
        cases.append(Case(f"rotated {rotation} {mirrored=}", clip, white=white, size=size))
    cases += [
        Case(f"pixels {aspect}", {"sample_aspect": aspect}, aspect=aspect)
        for aspect in (Fraction(2, 3), Fraction(16, 11), Fraction(64, 45))
    ]
    turned = {"sample_aspect": Fraction(1, 2), "rotation": 90}
    cases.append(
        Case("pixels and rotation", turned, aspect=Fraction(2), white=(1, 0), size=(48, 64))
    )
    for size in [
        (17, 31),
        (63, 47),
        (1, 1),
        (2, 2),
        (640, 16),
        (16, 640),
    ]:
        clip = {"size": size, "codec": "ffv1", "pixel_format": "yuv444p", "times_s": evenly(25, 2)}
        times_s, white = evenly(25, 2), None if min(size) < 16 else (0, 0)
        cases.append(
            Case(f"{size}", clip, "clip.mkv", size=size, times_s=times_s, white=white, heard=())
        )
    return cases


def colours() -> list[Case]:
    """Pixel formats, ranges, HDR, grey, palettes, alpha."""
    x265 = {"x265-params": "log-level=none"}
    kinds: dict[str, tuple[str, Clip]] = {
        "10 bit": ("a.mp4", {"pixel_format": "yuv420p10le"}),
        "4:2:2": ("a.mp4", {"pixel_format": "yuv422p"}),
        "4:4:4": ("a.mp4", {"pixel_format": "yuv444p"}),
        "4:2:2, 10 bit": ("a.mov", {"pixel_format": "yuv422p10le", "codec": "prores_ks"}),
        "4:1:1": ("a.mkv", {"pixel_format": "yuv411p", "codec": "ffv1"}),
        "12 bit": (
            "a.mp4",
            {"pixel_format": "yuv420p12le", "codec": "libx265", "options": x265},
        ),
        "full range": ("a.mp4", {"colours": {"color_range": 2, "colorspace": 1}}),
        "grey": ("a.mkv", {"pixel_format": "gray", "codec": "ffv1"}),
        "grey, 16 bit": ("a.mkv", {"pixel_format": "gray16le", "codec": "ffv1"}),
        "RGB": ("a.mkv", {"pixel_format": "bgr24", "codec": "libx264rgb"}),
        "12 bit RGB": ("a.mkv", {"pixel_format": "gbrp12le", "codec": "ffv1"}),
        "black and white": ("a.avi", {"pixel_format": "monob", "codec": "png"}),
        "raw": ("a.mov", {"pixel_format": "rgb24", "codec": "rawvideo"}),
        "raw, packed": ("a.avi", {"pixel_format": "yuyv422", "codec": "rawvideo"}),
        "alpha": ("a.mov", {"pixel_format": "rgba", "codec": "png"}),
        "alpha, 4:4:4:4": ("a.mov", {"pixel_format": "yuva444p10le", "codec": "prores_ks"}),
        "alpha of VP9": ("a.webm", {"pixel_format": "yuva420p", "codec": "libvpx-vp9"}),
    }
    for name, (trc, primaries) in {"PQ": (16, 9), "HLG": (18, 9)}.items():
        hdr = {"colorspace": 9, "color_range": 1, "color_trc": trc, "color_primaries": primaries}
        kinds[name] = (
            "a.mp4",
            {"pixel_format": "yuv420p10le", "codec": "libx265", "options": x265, "colours": hdr},
        )
    return [Case(name, {**clip, **_audio_for(file)}, file) for name, (file, clip) in kinds.items()]


def _audio_for(file: str) -> Clip:
    codecs = {".webm": "libopus", ".avi": "pcm_s16le"}
    what: Clip = {"sounds": [sounds(codec=codecs.get(Path(file).suffix, "aac"))]}
    if file.endswith(".avi"):
        what["tick"] = Fraction(1, 25)
    return what


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model, device="cpu", precision="fp32")


def tracks() -> list[Case]:
    """Sound: when, how many channels, which rates and codecs; several tracks of each kind."""
    long = {"times_s": evenly(5, 20)}  # 4 seconds
    gap = sounds([(0, 3.9)], 3.9, codec="pcm_s16le", gap=(48 * 1024, 144 * 1024))
    cases = [
        Case("no sound", {"sounds": []}, heard=()),
        Case("silence", {"sounds": [sounds([])]}, heard=()),
        Case(
            "sound starts late",
            {"sounds": [sounds([(0, 0.4)], start_s=2.5)], **long},
            times_s=evenly(5, 20),
            heard=((2.5, 2.9),),
        ),
        Case(
            "sound ends early",
            {"sounds": [sounds([(0.2, 0.4)], 0.6)], **long},
            times_s=evenly(5, 20),
        ),
        Case(
            "sound starts early",
            {"times_s": [0.6 + time_s for time_s in evenly(25)]},
            times_s=[0.6 + time_s for time_s in evenly(25)],
        ),
        Case(
            "sound goes on",
            {"sounds": [sounds([(0.2, 0.4), (1.2, 1.4)], 2)]},
            heard=(TONE[0], (1.2, 1.4)),
        ),
        Case(
            "a gap in the sound",
            {"sounds": [gap], **long},
            "a.mkv",
            times_s=evenly(5, 20),
            heard=((0.0, 1.02), (3.072, 3.9)),
        ),
        Case("sound before video", {"sound_first": True}),
        Case("subtitles", {"subtitles": True}),
        Case("second video", {"extra_videos": [{"size": (32, 24), "frames": 12}]}, "a.mkv"),
        Case(
            "cover",
            {
                "extra_videos": [
                    {
                        "size": (320, 240),
                        "codec": "mjpeg",
                        "pixel_format": "yuvj420p",
                        "disposition": Disposition.attached_pic,
                    }
                ]
            },
        ),
        Case(
            "second sound by default",
            {
                "sounds": [
                    sounds([(0.3, 0.4)], disposition=0),
                    sounds(disposition=Disposition.default, language="deu"),
                ]
            },
            "a.mkv",
        ),
        Case("attachment", {}, "a.mkv", edit=attach),
        Case("data", {}, "a.ts", edit=add_data, slack_s=PRIMING_S),
    ]
    for channels in (2, 3, 4, 5, 6, 8, 16):
        codec = "pcm_s16le" if channels == 16 else "aac"
        clip = {"sounds": [sounds(channels=channels, codec=codec)]}
        cases.append(Case(f"{channels} channels", clip, "a.mov" if channels == 16 else "a.mp4"))
    cases += [
        Case(f"{rate_hz} Hz", {"sounds": [sounds(rate_hz=rate_hz)]})
        for rate_hz in (8_000, 11_025, 16_000, 22_050, 44_100, 88_200, 96_000)
    ]
    for codec, file in {
        **dict.fromkeys(("libmp3lame", "ac3", "eac3", "mp2", "flac", "alac", "libopus"), "a.mkv"),
        **dict.fromkeys(("pcm_u8", "pcm_s24le", "pcm_f32le", "wavpack"), "a.mkv"),
        **dict.fromkeys(("pcm_s16be", "pcm_s24be", "pcm_mulaw", "pcm_alaw"), "a.mov"),
        **dict.fromkeys(("adpcm_ima_wav",), "a.avi"),
    }.items():
        clip: Clip = {"sounds": [sounds(codec=codec)]}
        if file == "a.avi":
            clip["tick"] = Fraction(1, 25)
        cases.append(Case(codec, clip, file))
    return cases


def attach(path: Path) -> Path:
    """Add a font to a Matroska file."""
    return _copy(path, lambda output: output.add_attachment("a.ttf", "font/ttf", b"font"))


def add_data(path: Path) -> Path:
    """Add a track of data to a transport stream."""
    return _copy(path, lambda output: output.add_data_stream("bin_data"))


def _copy(path: Path, add: Callable[[Any], Any]) -> Path:
    """Copy the packets of a file after something is added to it."""
    target = path.with_name(f"edited{path.suffix}")
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        kept = [each for each in source.streams if each.type in {"video", "audio"}]
        copies = {each.index: output.add_stream_from_template(each) for each in kept}
        added = add(output)
        for packet in source.demux(kept):
            if packet.size:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
        if getattr(added, "type", "") == "data":
            data = av.Packet(b"position")
            data.pts = data.dts = 9000
            data.time_base, data.stream = Fraction(1, 90_000), added
            output.mux(data)
    return target


def joined(*starts_s: float) -> Callable[[Path], Path]:
    """Return a function that joins pieces like a file, but with other start times."""

    def join(path: Path) -> Path:
        data = b""
        for start_s in starts_s:
            times_s = [start_s + time_s for time_s in evenly(25)]
            sound = sounds(start_s=start_s)
            piece = write_clip(
                path.with_name(f"piece{path.suffix}"), times_s=times_s, sounds=[sound]
            )
            data += piece.read_bytes()
        path.write_bytes(data)
        return path

    return join


def formats() -> list[Case]:
    """Containers and raw streams, with and without durations, indexes and times."""
    vp8 = {"codec": "libvpx", "tick": Fraction(1, 1000)}
    silent: Clip = {"sounds": [], "tick": TICK}
    mpeg2 = {"codec": "mpeg2video", "tick": TICK, "sounds": [sounds(codec="mp2")]}
    return [
        Case("no duration", {"container_options": {"live": "1"}}, "a.mkv"),
        Case(
            "fragments",
            {
                "container_options": {"movflags": "frag_keyframe+empty_moov"},
                "options": {"g": "4", "bf": "0"},
            },
            slack_s=PRIMING_S,
        ),
        Case("index first", {"container_options": {"movflags": "+faststart"}}),
        Case("QuickTime", {"codec": "mpeg4", "sounds": [sounds(codec="alac")]}, "a.mov"),
        Case("3GP", {"codec": "mpeg4"}, "a.3gp"),
        Case("transport stream", {}, "a.ts", slack_s=PRIMING_S),
        Case("Blu-ray", {}, "a.m2ts", slack_s=PRIMING_S),
        Case("program stream", mpeg2, "a.mpg", slack_s=PRIMING_S),
        Case("DVD", mpeg2, "a.vob", slack_s=PRIMING_S),
        Case(
            "AVI",
            {
                "codec": "mpeg4",
                "tick": TICK,
                "options": {"bf": "2"},
                "sounds": [sounds(codec="libmp3lame")],
            },
            "a.avi",
            slack_s=PRIMING_S,
        ),
        Case(
            "AVI, H.264",
            {"tick": TICK, "options": {"bf": "2"}, "sounds": [sounds(codec="pcm_s16le")]},
            "a.avi",
        ),
        Case(
            "Flash",
            {"codec": "flv", "sounds": [sounds(codec="libmp3lame", rate_hz=44_100)]},
            "a.flv",
            slack_s=0.03,
        ),
        Case("Flash, H.264", {}, "a.flv", slack_s=PRIMING_S),
        Case(
            "Windows Media",
            {"codec": "wmv2", "sounds": [sounds(codec="wmav2")], "tick": TICK},
            "a.wmv",
            slack_s=0.05,
        ),
        Case(
            "MXF",
            {"codec": "mpeg2video", "tick": TICK, "sounds": [sounds(codec="pcm_s16le")]},
            "a.mxf",
        ),
        Case("NUT", {"codec": "ffv1", "sounds": [sounds(codec="pcm_s16le")]}, "a.nut"),
        Case("WebM", {**vp8, "sounds": [sounds(codec="libopus")]}, "a.webm", out="out.webm"),
        Case(
            "AV1",
            {
                "codec": "libsvtav1",
                "options": {"preset": "12", "svtav1-params": "logical-processors=1"},
            },
            "a.mkv",
        ),
        Case("HEVC", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, "a.mov"),
        Case("IVF", {**silent, "codec": "libvpx"}, "a.ivf", heard=()),
        Case("raw H.264", silent, "a.h264", heard=()),
        Case("raw MPEG-2", {**silent, "codec": "mpeg2video"}, "a.m2v", heard=()),
        Case(
            "raw JPEG",
            {**silent, "codec": "mjpeg", "pixel_format": "yuvj420p"},
            "a.mjpeg",
            heard=(),
        ),
        Case("Y4M", {**silent, "codec": "wrapped_avframe"}, "a.y4m", heard=()),
        Case("GIF", {**silent, "codec": "gif", "pixel_format": "rgb8"}, "a.gif", heard=()),
        Case("APNG", {**silent, "codec": "apng", "pixel_format": "rgba"}, "a.apng", heard=()),
    ]


def structures() -> list[Case]:
    """How pictures depend on each other, edit lists, joined pieces, changes within a stream."""
    x264 = "x264-params"
    mpeg2 = {"codec": "mpeg2video", "tick": TICK, "sounds": [sounds(codec="mp2")]}
    return [
        Case("open GOP", {"options": {x264: "open-gop=1:keyint=4:bframes=3"}}),
        Case(
            "open GOP of MPEG-2",
            {**mpeg2, "options": {"bf": "2", "g": "6"}},
            "a.mpg",
            slack_s=PRIMING_S,
        ),
        Case("interlaced", {"options": {x264: "tff=1"}}),
        Case(
            "interlaced MPEG-2",
            {**mpeg2, "options": {"flags": "+ilme+ildct"}},
            "a.ts",
            slack_s=PRIMING_S,
        ),
        Case("intra refresh", {"options": {x264: "intra-refresh=1:keyint=8:bframes=0"}}),
        Case("many references", {"options": {x264: "ref=8:bframes=8:b-pyramid=normal"}}),
        Case("lossless", {"options": {"qp": "0"}}),
        Case(
            "soft telecine",
            {**mpeg2, "rate": 30, "tick": Fraction(1, 30), "times_s": evenly(30), "sounds": []},
            "a.ts",
            edit=telecine,
            times_s=TELECINE_S,
            heard=(),
        ),
        Case(
            "late video",
            {"times_s": [1 + t for t in evenly(25)]},
            times_s=[1 + t for t in evenly(25)],
        ),
        Case(
            "discarded frames",
            {"sounds": [], "options": {"bf": "0"}, "times_s": evenly(25)},
            edit=trim,
            times_s=evenly(25, 7),
            heard=(),
        ),
        Case(
            "a long last picture",
            {"times_s": [0, 0.04, 0.08], "sounds": [sounds(seconds=3)]},
            times_s=[0, 0.04, 0.08],
        ),
        Case(
            "empty chunks",
            {"codec": "mpeg4", "tick": TICK, "sounds": [sounds(codec="pcm_s16le")]},
            "a.avi",
            times_s=[0, 0.4, 0.44, 2.0],
        ),
        Case(
            "EXIF",
            {"codec": "mjpeg", "pixel_format": "yuvj420p", "sounds": [], "tick": TICK},
            "a.avi",
            edit=exif,
            heard=(),
            size=(48, 64),
            white=(0, 1),
        ),
        *joins(),
        Case(
            "8K",
            {"size": (7680, 4320), "times_s": [0], "options": {"preset": "ultrafast"}},
            times_s=[0],
            size=(7680, 4320),
            heard=(),
        ),
    ]


def joins() -> list[Case]:
    """Joined transport streams: clocks that jump, and pictures and sound that change."""
    later = [(begin + FRAMES / 25, end + FRAMES / 25) for begin, end in TONE]
    cases = []
    for name, edit in {
        "joined": joined(1.4, 1.4),
        "joined, clock ahead": joined(1.4, 5000),
        "joined, clock back": joined(700, 1.4),
        "joined, overlapping": joined(1.4, 1.86),
        "size changes": changing(size=(32, 24)),
        "sample rate changes": changing(rate_hz=44_100),
        "channels change": changing(channels=2),
    }.items():
        clip = {"times_s": evenly(25)}
        two = {"times_s": evenly(25, 2 * FRAMES), "heard": (*TONE, *later), "slack_s": 0.06}
        cases.append(Case(name, clip, "a.ts", edit=edit, **two))
    cases.append(Case("counter wraps", {}, "a.ts", edit=joined(95_443.4), slack_s=PRIMING_S))
    return cases


def changing(size: tuple[int, int] = (64, 48), **what: Any) -> Callable[[Path], Path]:
    """Return a function that appends a clip of another size, sample rate or number of channels."""

    def append(path: Path) -> Path:
        other = write_clip(
            path.with_name("b.ts"), times_s=evenly(25), size=size, sounds=[sounds(**what)]
        )
        path.write_bytes(path.read_bytes() + other.read_bytes())
        return path

    return append


def trim(path: Path) -> Path:
    """Let an edit list discard the first five frames."""
    target = path.with_name("trimmed.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                earlier = round(0.2 / packet.time_base)
                packet.pts, packet.dts = packet.pts - earlier, packet.dts - earlier
                packet.stream = stream
                output.mux(packet)
    return target


def exif(path: Path) -> Path:
    """Tell in the EXIF of each JPEG that it is to be turned."""
    add_exif(path, 6)
    return path


PICTURE, EXTENSION = b"\0\0\1\0", b"\0\0\1\xb5"
"""What the header of a picture of MPEG-2, and the extension that follows it, begin with."""
TELECINE_S = [(5 * (k // 2) + 3 * (k % 2)) / 60 for k in range(FRAMES)]
"""Times of film on television: pictures last three and two fields in turn."""


def telecine(path: Path) -> Path:
    """Set the flag that repeats a field in every other picture of MPEG-2, and the times."""
    target = path.with_name("film.ts")
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number, (packet, time_s) in enumerate(zip(packets, TELECINE_S, strict=True)):
            data = bytearray(bytes(packet))
            if number % 2 == 0:
                data[data.index(EXTENSION, data.index(PICTURE)) + 7] |= 2
            film = av.Packet(bytes(data))
            film.pts = film.dts = round(time_s * 90_000)
            film.time_base, film.stream = Fraction(1, 90_000), stream
            output.mux(film)
    return target


CASES = [*rates(), *shapes(), *colours(), *tracks(), *formats(), *structures()]


SLOW = {"8K"}
"""Names of cases that take seconds."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=pytest.mark.slow if case.name in SLOW else ())
        for case in CASES
    ],
)
def test_awkward_media(case: Case, model: LoadedModel, tmp_path: Path) -> None:
    clip = {"times_s": case.times_s, "sounds": [sounds()] if case.heard else [], **case.clip}
    path = write_clip(tmp_path / case.file, **clip)
    path = path if case.edit is None else case.edit(path)
    _check_masks(case, path, model)
    segment_video(path, tmp_path / case.out, model=model, smooth=False)
    _check_overlay(case, tmp_path / case.out)


def _check_masks(case: Case, path: Path, model: LoadedModel) -> None:
    found = list(iter_masks(path, model=model, smooth=False))
    times_s = [each.frame.time_s for each in found]
    assert times_s == pytest.approx(case.times_s, abs=case.slack_s)
    for each in found:
        width, height = case.size
        assert each.frame.rgb.shape == (height, width, 3)
        assert each.mask.shape == (height, width)
        if case.white is not None:
            assert _white_quarter(each.frame.rgb) == case.white
        if any(begin <= each.frame.time_s < end for begin, end in case.heard):
            assert each.mask.any()
        if all(abs(each.frame.time_s - at) > 1 for span in case.heard for at in span):
            assert not each.mask.any()


def _white_quarter(rgb: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
    """Return which quarter is lightest: top or bottom, left or right."""
    rows, columns = (np.array_split(np.arange(n), 4) for n in rgb.shape[:2])
    levels = {
        (row, column): rgb[rows[3 * row]][:, columns[3 * column]].mean()
        for row in (0, 1)
        for column in (0, 1)
    }
    return max(levels, key=lambda quarter: levels[quarter])


def _check_overlay(case: Case, path: Path) -> None:
    info = probe(path)
    video, audio = info.video[0], choose_audio(info, None)
    zero_s = clock_zero(info, video, audio)
    frames = list(read_frames(info, zero_s=zero_s))
    first_s = case.times_s[0] - frames[0].time_s
    shown_s = [frame.time_s + first_s for frame in frames]
    assert shown_s == pytest.approx(case.times_s, abs=case.slack_s + 0.001)
    width, height = (n + n % 2 for n in case.size)
    assert (video.width, video.height, video.sample_aspect) == (width, height, case.aspect)
    onsets_s = [] if audio is None else _onsets(path, zero_s)
    onsets_s = [onset_s + first_s for onset_s in onsets_s]
    assert onsets_s == pytest.approx([begin for begin, _ in case.heard], abs=0.03)


def _onsets(path: Path, zero_s: float) -> list[float]:
    """Return when sound begins after silence."""
    windows = read_windows(probe(path), rate_hz=RATE_HZ, zero_s=zero_s)
    loud = np.flatnonzero(np.abs(np.concatenate([w.samples for w in windows])) > 0.15)
    return [float(k) / RATE_HZ for k in loud[np.diff(loud, prepend=-RATE_HZ) > RATE_HZ // 20]]
