"""Truncated files and corrupted packets: what is left is read, what is missing is reported."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import MediaError
from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.damage import EARLY_S, DamageLog
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.values import Damage

from ..conftest import tone, write_clip

MakeClip = Callable[..., Path]
CorruptPackets = Callable[..., None]
SECONDS = 2
SOUND = {"samples": tone(SECONDS)}
SLOW_TICK = Fraction(1, 25)
KINDS: dict[str, dict[str, Any]] = {
    "faststart.mp4": {"sounds": [SOUND], "container_options": {"movflags": "+faststart"}},
    "fragmented.mov": {
        "sounds": [SOUND],
        "options": {"g": "12"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "clip.mkv": {"sounds": [SOUND]},
    "live.mkv": {"sounds": [SOUND], "container_options": {"live": "1"}},
    "clip.ts": {"sounds": [SOUND]},
    "clip.mpg": {
        "sounds": [SOUND | {"codec": "mp2"}],
        "codec": "mpeg2video",
        "tick": SLOW_TICK,
    },
    "clip.flv": {"sounds": [{"samples": tone(SECONDS, 44_100), "rate_hz": 44_100}]},
    "clip.avi": {
        "sounds": [SOUND | {"codec": "pcm_s16le"}],
        "codec": "mpeg4",
        "tick": SLOW_TICK,
    },
    "clip.wmv": {"sounds": [SOUND | {"codec": "wmav2"}], "codec": "wmv2", "tick": SLOW_TICK},
}
BETWEEN_PARTS = {"fragmented.mov": 2, "live.mkv": 2}
"""Cuts of 50 that can fall exactly between two parts of a file, which nothing in it tells."""


@pytest.fixture(scope="module", params=KINDS)
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of 2 s with sound."""
    path = tmp_path_factory.mktemp("damage") / str(request.param)
    return write_clip(path, seconds=SECONDS, **KINDS[path.name])


def read(path: Path, **options: bool) -> tuple[list[float], int, Damage | None]:
    """Read all pictures and all sound; return the times, the seconds of sound, and the damage."""
    info = probe(path)
    zero_s = clock_zero(info, info.video[0], info.audio[0] if info.audio else None)
    damage = DamageLog(path, **options)
    times_s = [frame.time_s for frame in read_frames(info, zero_s=zero_s, damage=damage)]
    windows = list(read_windows(info, rate_hz=8000, zero_s=zero_s, damage=damage))
    return times_s, len(windows), damage.found


def attempt(path: Path, **options: bool) -> tuple[list[float], int, Damage | None, str]:
    """Read a file, and return also the error, or the empty string."""
    try:
        return *read(path, **options), ""
    except MediaError as error:
        return [], 0, None, str(error)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_truncated_file_is_read_as_far_as_it_goes_or_rejected(
    clip: Path, tmp_path: Path, step: int
) -> None:
    data, (whole_s, _, damage) = clip.read_bytes(), read(clip)
    assert damage is None
    unnoticed, cut = 0, tmp_path / clip.name
    for part in range(0, 50, step):
        cut.write_bytes(data[: round(len(data) * (part + 0.5) / 50)])
        times_s, _, damage, error = attempt(cut, allow_partial=False)
        if error:
            assert error.startswith(f"{cut}: ")
            assert "truncated" in error
        else:
            unnoticed += damage is None
            assert damage is None or (damage.truncated and damage.missing_s is not None)
            assert damage is None or times_s[-1] > whole_s[-1] - EARLY_S - 0.1
    assert unnoticed <= BETWEEN_PARTS.get(clip.name, 0)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_part_of_a_truncated_file_can_be_read(clip: Path, tmp_path: Path, step: int) -> None:
    data, (whole_s, _, _) = clip.read_bytes(), read(clip)
    frames, cut = [0], tmp_path / clip.name
    for part in range(0, 50, step):
        cut.write_bytes(data[: round(len(data) * (part + 0.5) / 50)])
        times_s, _, damage, error = attempt(cut, allow_partial=True)
        if error:
            assert "truncated" in error
            # FFmpeg opens no file that is cut within the index of a fragment.
            assert frames[-1] <= 1 or clip.name == "fragmented.mov"
            continue
        # Of the last pictures, some that build on lost ones are missing.
        assert all(min(abs(time_s - w) for w in whole_s) < 0.02 for time_s in times_s)
        assert len(times_s) >= frames[-1] - 1
        frames.append(len(times_s))
        if damage is not None and damage.missing_s and damage.missing_s > 0.1:
            assert times_s[-1] + damage.missing_s >= whole_s[-1] - 0.1
    assert frames[-1] > 40


def test_what_is_missing_is_said_once(
    make_clip: MakeClip, caplog: pytest.LogCaptureFixture
) -> None:
    clip = make_clip(seconds=2, container_options={"movflags": "+faststart"}, options={"g": "1"})
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    with pytest.raises(
        MediaError, match=r"truncated.*or set `allow_partial` to use the readable part"
    ):
        read(clip, allow_partial=False)
    times_s, _, damage = read(clip, allow_partial=True)
    [line] = [record.getMessage() for record in caplog.records]
    end_s = times_s[-1] + 1 / 25
    assert line == (
        f"{clip}: truncated, its pictures end after {end_s:.2f} of 2.00 s; the rest is missing"
    )
    assert damage is not None
    assert damage.truncated
    assert damage.missing_s == pytest.approx(2 - end_s)


def test_sound_that_is_missing_although_all_pictures_are_there(make_clip: MakeClip) -> None:
    what = {"seconds": 2, "container_options": {"movflags": "+faststart"}}
    clip = make_clip(sounds=[{"samples": tone(8)}], **what)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    with pytest.raises(MediaError, match=r"truncated, its sound ends after"):
        read(clip, allow_partial=False)
    times_s, seconds, damage = read(clip, allow_partial=True)
    assert (len(times_s), seconds) == (50, 6)
    assert damage is not None
    assert damage.missing_s == pytest.approx(2.7, abs=0.5)


def test_joined_transport_streams_are_not_damaged(make_clip: MakeClip) -> None:
    one = make_clip("a.ts", seconds=1, sounds=[{"samples": tone(1)}]).read_bytes()
    two = make_clip("b.ts", seconds=0.6, sounds=[{"samples": tone(0.6)}])
    two.write_bytes(one + two.read_bytes())
    times_s, _, damage = read(two)
    assert len(times_s) == 40
    assert damage is None


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_isolated_corrupted_pictures_are_counted(
    make_clip: MakeClip, corrupt_packets: CorruptPackets, name: str
) -> None:
    what = {"codec": "mpeg4", "tick": SLOW_TICK} if name.endswith("avi") else {}
    clip = make_clip(name, seconds=2, options={"g": "10"}, **what)
    corrupt_packets(clip, [12, 13, 31])
    times_s, _, damage = read(clip, allow_partial=False)
    assert 40 <= len(times_s) < 50
    assert damage is not None
    assert not damage.truncated
    assert damage.corrupted_video_packets == pytest.approx(3, abs=1)


def test_isolated_corrupted_packets_of_sound_are_counted_once_and_silent(
    make_clip: MakeClip, corrupt_packets: CorruptPackets
) -> None:
    clip = make_clip(seconds=2, sounds=[{"samples": tone(2)}])
    corrupt_packets(clip, [40, 41, 50], kind="audio")
    info, damage = probe(clip), DamageLog(clip)
    for _ in range(2):  # the analysis and the copy of the sound
        windows = list(read_windows(info, rate_hz=8000, damage=damage))
    assert damage.found == Damage(corrupted_audio_packets=3)
    assert len(windows) == 3
    samples = np.concatenate([window.samples for window in windows])
    assert np.abs(samples[6750:6900]).max() < 0.01
    assert np.abs(samples[8000:8300]).max() > 0.3


@pytest.mark.parametrize("name", ["clip.mkv", "clip.flv"])
def test_a_broken_part_of_a_file_is_noticed(
    make_clip: MakeClip, corrupt_packets: CorruptPackets, name: str
) -> None:
    options = {"cluster_time_limit": "500"} if name.endswith("mkv") else {}
    clip = make_clip(name, seconds=3, options={"g": "5"}, container_options=options)
    corrupt_packets(clip, [30])  # with its header, without which the next ones are not found
    if name.endswith("flv"):  # FFmpeg reads no more of it
        with pytest.raises(MediaError, match=r"damaged, its pictures end after 1\.2"):
            read(clip, allow_partial=False)
    times_s, _, damage = read(clip, allow_partial=True)
    assert 30 <= len(times_s) < 75
    assert damage is not None
    assert damage.unreadable_parts == 1


def test_sound_that_is_unreadable_from_some_point_on(
    make_clip: MakeClip, corrupt_packets: CorruptPackets
) -> None:
    clip = make_clip(times_s=[0, 4, 8], rate=1, sounds=[{"samples": tone(9)}])
    corrupt_packets(clip, range(100, 422), kind="audio")
    with pytest.raises(MediaError, match=r"unreadable.*, or set `allow_partial`"):
        read(clip, allow_partial=False)
    times_s, seconds, damage = read(clip, allow_partial=True)
    assert (len(times_s), seconds) == (3, 10)
    assert damage == Damage(corrupted_audio_packets=322)


def test_a_picture_that_the_decoder_completes_is_counted(make_clip: MakeClip) -> None:
    def noise(index: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)

    clip = make_clip("clip.avi", seconds=1, picture=noise, codec="mpeg4", tick=SLOW_TICK)
    data = bytearray(clip.read_bytes())
    middle = data.index(b"00dc", len(data) // 2) + 600
    data[middle : middle + 40] = b"\xaa" * 40
    clip.write_bytes(data)
    _, _, damage = read(clip)
    assert damage is not None
    assert damage.incomplete_frames >= 1
