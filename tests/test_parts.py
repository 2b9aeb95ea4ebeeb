"""A video in parts has the same masks, frames and times as in one piece."""

import pickle
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.parts import cut, hear, join_parts, segment_part
from av2tsam_cli.pipeline import SegmentResult, load_for, segment_planned
from av2tsam_cli.plan import SegmentPlan, plan_video
from av2tsam_cli.segment_options import SegmentOptions

from .conftest import grey_step

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
VIDEOS = {".mp4", ".mov", ".mkv", ".webm"}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LoadedModel:
    return load_model(tiny_model, device="cpu", precision="fp32")


def moving(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A square that moves to the right over a background that changes every fifth frame."""
    picture = grey_step(index // 5, width, height)
    left = 2 * index % (width - 12)
    picture[20:32, left : left + 12] = (200, 40, 90)
    return picture


def in_parts(plan: SegmentPlan, model: LoadedModel, seconds: int, work: Path) -> SegmentResult:
    """Segment a video in parts, as by processes that share nothing but files."""

    def sent(value: Any) -> Any:
        return pickle.loads(pickle.dumps(value))  # noqa: S301

    def segmenter() -> Any:
        return load_for(plan.options, model, device="cpu", precision="auto")

    plan = sent(plan)
    heard, parts = sent(hear(plan, segmenter())), sent(cut(plan, seconds))
    results = [
        sent(segment_part(plan, segmenter(), heard, part, work / str(part.number)))
        for part in parts
    ]
    return join_parts(plan, segmenter(), heard, results)


def both_ways(
    clip: Path, model: LoadedModel, seconds: int, folder: Path, out: str, **options: Any
) -> tuple[Path, Path]:
    """Segment a clip in one piece and in parts; return the folders of the outputs."""
    results = {}
    sides = {
        name: value for name, value in options.items() if isinstance(value, str) and "." in value
    }
    for way in ("one", "parts"):
        place = folder / way
        place.mkdir()
        own = {name: place / value for name, value in sides.items()}
        chosen = SegmentOptions(**{**options, **own})
        plan = plan_video(clip, place / out, chosen)
        if way == "one":
            segmenter = load_for(chosen, model, device="cpu", precision="auto")
            results[way] = segment_planned(plan, segmenter)
        else:
            results[way] = in_parts(plan, model, seconds, folder / "work")
    one, parts = (asdict(results[way]) for way in ("one", "parts"))
    for name in ("outputs", "wall_s"):
        del one[name], parts[name]
    assert one == parts
    return folder / "one", folder / "parts"


def check_same(one: Path, parts: Path) -> None:
    """Check that two folders have the same files; of videos, the same times and sound."""
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert files == {path.relative_to(parts) for path in parts.rglob("*") if path.is_file()}
    for name in files:
        if name.suffix in VIDEOS:
            assert described(one / name) == described(parts / name)
        else:
            assert (one / name).read_bytes() == (parts / name).read_bytes(), name


def described(path: Path) -> dict[str, Any]:
    """What must be the same in videos: everything but the order and the data of the pictures."""
    with av.open(str(path)) as video:
        found: dict[str, Any] = {"tags": dict(video.metadata), "duration": video.duration}
        for stream in video.streams:
            codec = stream.codec_context
            found[f"stream {stream.index}"] = (
                (codec.name, codec.extradata, stream.time_base, stream.start_time),
                (stream.duration, dict(stream.metadata)),
            )
        for packet in video.demux():
            if packet.size:
                number, sound = packet.stream_index, packet.stream.type == "audio"
                own = found.setdefault(f"packets {number}", [])
                own.append((packet.pts, packet.dts, packet.duration, bytes(packet) * sound))
    for name, values in found.items():
        if name.startswith("packets"):
            found[name] = [sorted(column) for column in zip(*values, strict=True)]
    return found


@pytest.fixture
def clip(make_clip: MakeClip, tone: Tone) -> Path:
    """Nine seconds with two sounds, a silence, moving and still pictures, and B-frames."""
    sound = np.concatenate([tone(4.6), 0 * tone(1.8), tone(2.6, hz=1900.0)], axis=1)
    return make_clip(
        "clip.mkv",
        seconds=9,
        rate=12,
        picture=moving,
        options={"bf": "2", "g": "50"},
        sounds=[{"samples": sound}],
    )


@pytest.mark.parametrize(
    ("out", "options"),
    [
        ("out", {"format": "masks", "frames_csv": "frames.csv", "events": "events.json"}),
        ("out", {"format": "masks", "start": 1.3, "end": 8.1, "frames_csv": "frames.csv"}),
        ("out", {"format": "masks", "timing": "paper"}),
        ("out", {"format": "masks", "fps": "auto"}),
        ("out", {"format": "masks", "fps": Fraction(3)}),
        ("out", {"format": "masks", "text": "the dog"}),
        ("out", {"format": "masks", "text": "the dog", "fps": "auto"}),
        ("out.mp4", {}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_parts_equal_one_piece(
    clip: Path, model: LoadedModel, tmp_path: Path, out: str, options: dict[str, Any]
) -> None:
    one, parts = both_ways(clip, model, 2, tmp_path, out, **options)
    check_same(one, parts)
