"""Parts of a video, written on their own and joined, are what one writer writes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.media.audio import choose_audio
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.outputs.encoding import choose_encoding
from av2tsam_cli.outputs.part import SummaryLines, WrittenPart
from av2tsam_cli.outputs.writers import Format, open_part_writer, open_writer
from av2tsam_cli.segment_options import VIDEO_SUFFIXES, LookOptions
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
CUTS = (0, 11, 12, 12, 30)
"""Numbers of the first frames of the parts, of which one has no frames."""
NAMES = ("dog", "Dog", "acoustic guitar")


def found(frame: Frame, number: int) -> MaskedFrame:
    """The sources that are in view in a frame of a video; its number is that in the part."""
    labels = np.zeros(frame.rgb.shape[:2], np.uint8)
    for label in range(3):
        if frame.index // 5 % 4 >= label:
            labels[10:30, 16 * label + 1 : 16 * label + 11] = label + 1
    sources = SourceMasks(NAMES, labels, (0.5, 0.75, 0.25), (3, 1, 2))
    numbered = Frame(frame.rgb, frame.time_s, number, duration_s=frame.duration_s)
    return MaskedFrame(numbered, labels > 0, "computed", sources, score=0.5)


def write_both(
    clip: Path, folder: Path, kind: Format, out: str, **encoding: Any
) -> tuple[Path, Path]:
    """Write a clip in one piece and in parts; return both results."""
    info = probe(clip)
    video, audio = info.video[0], choose_audio(info, None)
    look, zero_s = LookOptions(names=True), clock_zero(info, video, audio)
    one, joined = folder / "one" / out, folder / "joined" / out
    chosen = None
    if kind in VIDEO_SUFFIXES:
        chosen = choose_encoding(one, "yuv420p", alpha=kind == "cutout", **encoding)
    common: dict[str, Any] = {"info": info, "video": video, "encoding": chosen, "look": look}
    whole: dict[str, Any] = {**common, "audio": audio, "zero_s": zero_s, "threads": 1}
    with open_writer(one, kind, **whole) as writer:
        for frame in read_frames(info, zero_s=zero_s):
            writer.write(found(frame, frame.index))
    parts = []
    for number, (first, stop) in enumerate(zip(CUTS, (*CUTS[1:], 99), strict=True)):
        part = WrittenPart(folder / f"part {number}")
        part.folder.mkdir()
        main = open_part_writer(part, joined, kind, **common, start_s=0.0, threads=1)
        with main, SummaryLines(part) as lines:
            for frame in read_frames(info, zero_s=zero_s):
                if frame.index < first:
                    main.skip(found(frame, 0))
                elif frame.index < stop:
                    main.write(found(frame, lines.frames))
                    lines.write(found(frame, lines.frames))
        parts.append(WrittenPart(part.folder, lines.frames))
    with open_writer(joined, kind, **whole) as writer:
        writer.append(parts)
    return one, joined


@pytest.fixture
def clip(make_clip: MakeClip, tone: Tone) -> Path:
    """Pictures of uneven durations, B-frames and sound."""
    times_s = np.cumsum(np.random.default_rng(0).integers(1, 6, 36)) / 50
    sounds = [{"samples": tone(float(times_s[-1])), "start_s": 0.1}]
    return make_clip("a clip.mkv", times_s=times_s.tolist(), sounds=sounds, options={"bf": "2"})


@pytest.mark.parametrize(
    "kind",
    [
        "masks",
        "overlays",
        "mattes",
        "cutouts",
        "named-masks",
        "indexed-masks",
        "coco",
        "yolo",
        "npz",
    ],
)
def test_folders(clip: Path, tmp_path: Path, kind: Format) -> None:
    one, joined = write_both(clip, tmp_path, kind, "out")
    files = {path.relative_to(one): path for path in one.rglob("*") if path.is_file()}
    assert len(files) == len([path for path in joined.rglob("*") if path.is_file()])
    for name, path in files.items():
        assert (joined / name).read_bytes() == path.read_bytes(), name


@pytest.mark.parametrize(
    ("kind", "out", "encoding"),
    [
        ("video", "out.mp4", {}),
        ("video", "out.mkv", {}),
        ("video", "out.mp4", {"codec": "h265"}),
        ("video", "out.webm", {}),
        ("video", "out.mp4", {"codec": "av1"}),
        ("matte", "out.mov", {}),
        ("cutout", "out.mov", {}),
        ("cutout", "out.webm", {}),
    ],
)
def test_videos(
    clip: Path, tmp_path: Path, kind: Format, out: str, encoding: dict[str, Any]
) -> None:
    one, joined = write_both(clip, tmp_path, kind, out, **encoding)
    assert packets(joined) == packets(one)
    decoder = "libvpx-vp9" if kind == "cutout" and out == "out.webm" else None
    for (time_s, picture), (own_s, own) in zip(
        pictures(joined, decoder), pictures(one, decoder), strict=True
    ):
        assert time_s == own_s
        assert np.mean(np.abs(picture.astype(int) - own)) < 4  # codecs are lossy


def packets(path: Path) -> dict[str, Any]:
    """All but the order and the data of pictures: the times, the sound, the streams.

    Without the duration of the last packet, which in MP4 depends on the order.
    """
    with av.open(str(path)) as video:
        known: dict[str, Any] = {"tags": dict(video.metadata), "duration": video.duration}
        for stream in video.streams:
            context = stream.codec_context
            known[f"stream {stream.index}"] = (
                (context.name, context.extradata, stream.time_base, stream.start_time),
                (stream.duration, dict(stream.metadata)),
            )
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for packet in video.demux():
            if packet.size:
                sound = bytes(packet) * (packet.stream.type == "audio")
                own = rows.setdefault(f"packets {packet.stream_index}", [])
                own.append((packet.pts, packet.dts or packet.pts, packet.duration, sound))
    return known | {name: list(_sorted_columns(found)) for name, found in rows.items()}


def _sorted_columns(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[Any]]:
    pts, dts, durations, data = zip(*rows, strict=True)
    yield from (sorted(pts), sorted(dts), sorted(durations[:-1]), list(data))


def pictures(path: Path, decoder: str | None) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """The times and the decoded pictures of a video, with their transparency."""
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        context: Any = av.CodecContext.create(decoder, "r") if decoder else stream.codec_context
        if decoder:
            assert stream.codec_context.pix_fmt in {"yuv420p", "yuva420p"}
        for packet in video.demux(stream):
            for frame in context.decode(packet if packet.size else None):
                yield float(packet.time_base * frame.pts), frame.to_ndarray(format="rgba")
