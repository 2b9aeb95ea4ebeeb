"""Small valid media files of many containers and codecs, from which fuzzers make damaged ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..conftest import tone, write_clip, write_sound

FRAMES, RATE = 6, 12
SECONDS = FRAMES / RATE
SIZE = (64, 48)


def _codec(name: str, pixel_format: str = "") -> dict[str, Any]:
    return {"codec": name, **({"pixel_format": pixel_format} if pixel_format else {})}


HEVC = {**_codec("libx265"), "options": {"x265-params": "log-level=none"}}
VORBIS = {**_codec("vorbis"), "options": {"strict": "experimental"}}
AMR = {**_codec("libopencore_amrnb"), "rate_hz": 8_000}
MP4_MARKS = (
    *(b"mvhd", b"tkhd", b"mdhd", b"hdlr", b"stsd", b"stts", b"ctts", b"stsc", b"stsz", b"stco"),
    *(b"elst", b"stss", b"avcC", b"esds", b"trun", b"tfhd", b"tfdt", b"trex", b"moov", b"mdat"),
)
MATROSKA_MARKS = (  # the identifiers of elements, such as TimestampScale, PixelWidth and Channels
    *(b"\x2a\xd7\xb1", b"\xb0", b"\xba", b"\xe0", b"\xe1", b"\xb5", b"\x9f", b"\x44\x89"),
    *(b"\xae", b"\x63\xa2", b"\xa3", b"\xa0", b"\xe7", b"\x1f\x43\xb6\x75", b"\x1c\x53\xbb\x6b"),
)
RIFF_MARKS = (b"avih", b"strh", b"strf", b"fmt ", b"data", b"idx1", b"00dc", b"movi")
MARKS = {
    **dict.fromkeys((".mp4", ".mov", ".3gp", ".m4a"), MP4_MARKS),
    **dict.fromkeys((".mkv", ".webm"), MATROSKA_MARKS),
    **dict.fromkeys((".avi", ".wav"), RIFF_MARKS),
    ".gif": (b"GIF89a", b"!\xf9\x04", b",\x00\x00"),
    ".apng": (b"IHDR", b"acTL", b"fcTL", b"fdAT", b"IDAT"),
    ".webp": (b"VP8X", b"ANIM", b"ANMF", b"VP8 ", b"VP8L"),
    ".flv": (b"FLV", b"onMetaData", b"width", b"height", b"duration"),
    ".ogg": (b"OggS", b"OpusHead", b"vorbis"),
    ".y4m": (b"YUV4MPEG2", b" W", b" H", b"FRAME"),
    ".h264": (b"\0\0\1",),
    ".hevc": (b"\0\0\1",),
    ".ts": (b"G@", b"\0\0\1"),
    ".mpg": (b"\0\0\1",),
    ".mxf": (b"\x06\x0e\x2b\x34",),
    ".nut": (b"N\x4d", b"N\x53"),
    ".flac": (b"fLaC",),
    ".caf": (b"desc", b"data", b"pakt"),
    ".aiff": (b"COMM", b"SSND"),
    ".au": (b".snd",),
}
"""What comes before fields of interest in a kind of file."""


@dataclass(frozen=True, eq=False)
class Clip:
    """How a valid file is made."""

    name: str
    """Its file name."""
    video: dict[str, Any] | None = field(default_factory=dict)
    """Arguments of `write_clip`; None for a file with sound only."""
    sound: dict[str, Any] | None = field(default_factory=dict)
    """A sound of `write_clip` without its samples; None for a video without sound."""
    channels: int = 1
    """Channels of the sound."""

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What comes before fields of interest in the file."""
        return MARKS.get(Path(self.name).suffix, ())

    def write(self, folder: Path) -> Path:
        """Write the file into a folder and return its path."""
        sounds = []
        if self.sound is not None:
            samples = tone(SECONDS, self.sound.get("rate_hz", 48_000), channels=self.channels)
            sounds = [{"samples": samples, **self.sound}]
        if self.video is None:
            return write_sound(folder / self.name, sounds[0])
        rate = self.video.get("rate", RATE)
        times_s = [k / rate for k in range(FRAMES)]
        video = {"rate": rate, "times_s": times_s, "size": SIZE, "tick": Fraction(1, rate)}
        return write_clip(folder / self.name, sounds=sounds, **{**video, **self.video})


def clips() -> list[Clip]:
    """Return all clips; a few take most of the codecs and containers that cameras and tools use."""
    return [*_videos(), *_pictures(), *_sounds()]


def _videos() -> Iterator[Clip]:
    pcm, mp2, mp3, opus = map(_codec, ("pcm_s16le", "mp2", "libmp3lame", "libopus"))
    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    jpeg = _codec("mjpeg", "yuvj420p")
    mpeg2 = {**_codec("mpeg2video"), "rate": 25}
    yield Clip("h264-aac.mp4")
    yield Clip("fragmented.mp4", {"container_options": fragmented})
    yield Clip("rotated.mp4", {"rotation": 90})
    yield Clip("subtitles.mp4", {"subtitles": True})
    yield Clip("hevc.mp4", HEVC)
    yield Clip("av1.mp4", _codec("libsvtav1"), None)
    yield Clip("mpeg4-alac.mp4", _codec("mpeg4"), _codec("alac"))
    yield Clip("prores-pcm.mov", _codec("prores_ks", "yuv422p10le"), pcm)
    yield Clip("mjpeg-float.mov", jpeg, _codec("pcm_f32le"))
    yield Clip("qtrle-adpcm.mov", _codec("qtrle", "argb"), _codec("adpcm_ima_qt"))
    yield Clip("png-pcm24.mov", _codec("png", "rgba"), _codec("pcm_s24le"))
    yield Clip("h263-amr.3gp", {**_codec("h263"), "size": (128, 96)}, AMR)
    yield Clip("vp9-opus.mkv", _codec("libvpx-vp9"), opus)
    yield Clip("ffv1-flac.mkv", _codec("ffv1", "yuv444p"), _codec("flac"))
    yield Clip("surround.mkv", {}, _codec("ac3"), channels=6)
    yield Clip("channels.mkv", {}, {**pcm, "rate_hz": 8_000}, channels=16)
    yield Clip("vp8-vorbis.webm", _codec("libvpx"), VORBIS, channels=2)
    yield Clip("av1-opus.webm", _codec("libsvtav1"), opus)
    yield Clip("mjpeg-pcm.avi", jpeg, pcm)
    yield Clip("mpeg4-mp3.avi", _codec("mpeg4"), mp3)
    yield Clip("huffyuv-pcm8.avi", _codec("huffyuv", "yuv422p"), _codec("pcm_u8"))
    yield Clip("raw-adpcm.avi", _codec("rawvideo", "bgr24"), _codec("adpcm_ms"))
    yield Clip("h264-aac.ts")
    yield Clip("mpeg2-mp2.ts", mpeg2, mp2)
    yield Clip("mpeg1-mp2.mpg", {**_codec("mpeg1video"), "rate": 25}, mp2)
    yield Clip("h264-aac.flv")
    yield Clip("flv1-mp3.flv", _codec("flv"), {**mp3, "rate_hz": 44_100})
    yield Clip("mpeg2-pcm.mxf", {**mpeg2, "pixel_format": "yuv422p"}, pcm)
    yield Clip("vp8-opus.ogg", _codec("libvpx"), opus)
    yield Clip("wmv2-wma.asf", _codec("wmv2"), _codec("wmav2"))
    yield Clip("h264-pcm.nut", {}, pcm)
    yield Clip("rv10-ac3.rm", _codec("rv10"), _codec("ac3"))


def _pictures() -> Iterator[Clip]:
    yield Clip("pictures.gif", _codec("gif", "rgb8"), None)
    yield Clip("pictures.apng", _codec("apng", "rgb24"), None)
    yield Clip("pictures.webp", _codec("libwebp_anim", "yuva420p"), None)
    yield Clip("raw.h264", {}, None)
    yield Clip("raw.hevc", HEVC, None)
    yield Clip("raw.y4m", _codec("wrapped_avframe"), None)
    yield Clip("vp8.ivf", _codec("libvpx"), None)


def _sounds() -> Iterator[Clip]:
    for name, codec in {
        "sound.wav": "pcm_s16le",
        "sound.flac": "flac",
        "sound.mp3": "libmp3lame",
        "sound.m4a": "aac",
        "sound.aac": "aac",
        "sound.opus": "libopus",
        "sound.ac3": "ac3",
        "sound.aiff": "pcm_s16be",
        "sound.caf": "pcm_f32le",
        "sound.au": "pcm_mulaw",
        "sound.wma": "wmav2",
        "sound.w64": "pcm_s24le",
    }.items():
        yield Clip(name, None, _codec(codec))
    yield Clip("sound.ogg", None, VORBIS, channels=2)
    yield Clip("sound.wv", None, _codec("wavpack"), channels=2)
    yield Clip("sound.tta", None, _codec("tta"), channels=2)
    yield Clip("sound.amr", None, AMR)
