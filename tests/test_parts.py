"""A video in parts has the same masks, frames and times as in one piece."""

import pickle
from collections.abc import Callable
from dataclasses import asdict
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import Av2tsamError, MediaError
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.media.audio import read_channels
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe
from av2tsam_cli.parts import analyse_sound, cut, join_parts, segment_part
from av2tsam_cli.pipeline import SegmentResult, load_for, segment_planned
from av2tsam_cli.plan import SegmentPlan, plan_video
from av2tsam_cli.segment_options import SegmentOptions

from .conftest import grey_step

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
SAMPLES = Path(__file__).parents[1] / "sample_media"
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
    sound, parts = sent(analyse_sound(plan, segmenter())), sent(cut(plan, seconds))
    results = [
        sent(segment_part(plan, segmenter(), sound, part, work / str(part.number)))
        for part in parts
    ]
    return join_parts(plan, segmenter(), sound, results)


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
        place.mkdir(parents=True)
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
            own = (one / name).read_bytes().replace(bytes(one), bytes(parts))
            assert own == (parts / name).read_bytes(), name


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
                own.append((packet.pts, packet.dts, bytes(packet) * sound))
    for name, values in found.items():
        if name.startswith("packets"):
            found[name] = [sorted(column) for column in zip(*values, strict=True)]
    return found


@pytest.fixture
def clip(make_clip: MakeClip, tone: Tone) -> Path:
    """Nine seconds with two sounds, a silence, moving and still pictures, a gap and B-frames."""
    sound = np.concatenate([tone(4.6), 0 * tone(1.8), tone(2.6, hz=1900.0)], axis=1)
    times_s = [k / 14 for k in range(126) if k not in range(71, 78)]
    return make_clip(
        "clip.mkv", times_s=times_s, picture=moving, options={"bf": "2"},
        sounds=[{"samples": sound}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "out", "options"),
    [
        (4, "out", {"format": "masks", "frames_csv": "frames.csv", "events": "events.json"}),
        (2, "out.mp4", {"start": 1.3, "end": 6.1, "timing": "paper", "fps": Fraction(3)}),
        (4, "out", {"format": "npz", "end": 6.0, "text": "the dog", "fps": "auto"}),
    ],
    ids=["trained", "paper", "text"],
)
def test_parts_equal_one_piece(
    clip: Path,
    model: LoadedModel,
    tmp_path: Path,
    seconds: int,
    out: str,
    options: dict[str, Any],
) -> None:
    one, parts = both_ways(clip, model, seconds, tmp_path, out, **options)
    check_same(one, parts)


def test_names_have_the_same_numbers_and_colours(make_clip: MakeClip, tmp_path: Path) -> None:
    """Of a dog and a trumpet, one is heard before the other."""
    duet = probe(SAMPLES / "duet.mp4")
    frames = [cv2.resize(each.rgb, (160, 90)) for each in islice(read_frames(duet), 0, None, 8)]
    clip = make_clip(
        seconds=8,
        rate=Fraction(25, 8),
        size=(160, 90),
        picture=lambda index, *_: np.asarray(frames[index], np.uint8),
        sounds=[{"samples": read_channels(duet, duet.audio[0]), "rate_hz": duet.audio[0].rate_hz}],
    )
    nano = load_model("nano", device="cpu")
    names: dict[str, Any] = {"names": True, "hud": True, "timing": "paper"}
    names |= {"events": "events.srt", "preview": "sheet.png", "report": "report.html"}
    one, parts = both_ways(clip, nano, 3, tmp_path, "out", format="overlays", **names)
    check_same(one, parts)
    assert {"dog", "trumpet"} <= set((one / "events.srt").read_text().splitlines())


def test_a_video_without_sound_and_with_longer_gaps_than_parts(
    make_clip: MakeClip, model: LoadedModel, tmp_path: Path
) -> None:
    clip = make_clip(times_s=[0.0, 0.5, 7.2, 7.6])
    one, parts = both_ways(clip, model, 2, tmp_path, "out", format="indexed-masks", text="the dog")
    check_same(one, parts)
    one, parts = both_ways(clip, model, 3, tmp_path / "mute", "out", format="masks")
    check_same(one, parts)


def test_a_gap_before_the_last_frames_does_not_make_a_video_longer(
    make_clip: MakeClip, model: LoadedModel, tmp_path: Path
) -> None:
    times_s = [k / 5 for k in range(45) if not 13 < k < 42]
    clip = make_clip("clip.mov", times_s=times_s, rate=5, picture=moving)
    check_same(*both_ways(clip, model, 2, tmp_path, "out.mp4", text="the dog", fps=Fraction(1)))


def test_damage_is_counted_once(
    clip: Path,
    model: LoadedModel,
    tmp_path: Path,
    corrupt_packets: Callable[..., None],
) -> None:
    corrupt_packets(clip, [30, 31])
    corrupt_packets(clip, [60], "audio")
    damaged = {"format": "masks", "end": 4.0, "allow_partial": True}
    one, parts = both_ways(clip, model, 2, tmp_path, "out", **damaged)
    check_same(one, parts)


def test_a_video_that_is_replaced_between_two_parts_is_an_error(
    clip: Path, make_clip: MakeClip, model: LoadedModel, tmp_path: Path
) -> None:
    def plan() -> SegmentPlan:  # as other processes make it
        return plan_video(clip, tmp_path / "out.mp4", SegmentOptions(text="the dog", end=5.0))

    segmenter = load_for(plan().options, model, device="cpu", precision="auto")
    sound, parts = analyse_sound(plan(), segmenter), cut(plan(), 4)
    folders = [tmp_path / "0", tmp_path / "1"]
    first = segment_part(plan(), segmenter, sound, parts[0], folders[0])
    make_clip("clip.mkv", seconds=9, rate=14)
    with pytest.raises(MediaError, match=r"clip\.mkv: changed while it was read"):
        segment_part(plan(), segmenter, sound, parts[1], folders[1])
    with pytest.raises(MediaError, match=r"clip\.mkv: changed while it was read"):
        join_parts(plan(), segmenter, sound, [first])
    assert not folders[1].exists()


def test_a_failed_join_leaves_nothing(clip: Path, model: LoadedModel, tmp_path: Path) -> None:
    plan = plan_video(clip, tmp_path / "new" / "out.mp4", SegmentOptions(end=2.0))
    segmenter = load_for(plan.options, model, device="cpu", precision="auto")
    sound, [part] = analyse_sound(plan, segmenter), cut(plan, 2)
    result = segment_part(plan, segmenter, sound, part, tmp_path / "part")
    with result.written.packets.open("r+b") as packets:
        packets.write(b"\xff\0\0\0\1\0\0\0")
    with pytest.raises(Av2tsamError, match="its parts were encoded differently"):
        join_parts(plan, segmenter, sound, [result])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mkv", "part"]


def test_a_declared_end_far_after_the_last_frame_adds_no_parts(
    make_clip: MakeClip, model: LoadedModel, tmp_path: Path
) -> None:
    """Two joined pieces, of which the second one has a clock that is hours ahead."""
    clip = make_clip("clip.ts", seconds=2, rate=5)
    later = make_clip("later.ts", times_s=[5000 + k / 5 for k in range(10)])
    clip.write_bytes(clip.read_bytes() + later.read_bytes())
    plan = plan_video(clip, tmp_path / "out.mp4", SegmentOptions(text="the dog"))
    assert plan.end_s is not None
    assert plan.end_s > 1000
    assert len(cut(plan, 2)) <= 3
    check_same(*both_ways(clip, model, 2, tmp_path, "out", format="masks", text="the dog"))


def test_cuts_are_at_whole_seconds(clip: Path) -> None:
    plan = plan_video(clip, clip.parent / "out.mp4", SegmentOptions(start=1.3, end=7.0))
    parts = cut(plan, 2)
    assert [part.start_s for part in parts] == [1.3, 3.0, 5.0]
    assert [part.stop_s for part in parts] == [3.0, 5.0, float("inf")]
    assert all(part.decode_s <= part.compute_s <= part.start_s for part in parts)
    last = cut(plan_video(clip, clip.parent / "out.mp4", SegmentOptions()), 4)[-1]
    assert (last.compute_s, last.start_s) == (4.0, 8.0)
    assert 3.0 < last.decode_s < 4.0
    [only] = cut(plan, 60)
    assert (only.start_s, only.stop_s) == (1.3, float("inf"))
