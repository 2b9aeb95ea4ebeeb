"""Clocks that jump: joined recordings, counters that start again, overlaps, and corrupted times."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.media.audio import choose_audio, read_windows
from av2tsam_cli.media.clock import Clock
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
Join = Callable[..., Path]
RATE_HZ = 16_000
PIECE_S = 1.0
BURST_S = 0.48
"""Where in each piece the sound begins, which is also where a frame begins."""


@pytest.fixture
def join(make_clip: MakeClip, tone: Tone) -> Join:
    """Join pieces of one second that start at given times; their sound begins at `BURST_S`."""

    def run(
        name: str, starts_s: list[float], *, sound_s: float = PIECE_S, seconds: float = PIECE_S
    ) -> Path:
        burst = np.zeros((1, round(sound_s * 48_000)), np.float32)
        burst[:, round(BURST_S * 48_000) :] = tone(sound_s - BURST_S)
        data = b""
        for start_s in starts_s:
            sound = {"samples": burst, "start_s": start_s}
            what: dict[str, Any] = {}
            if name.endswith(".mpg"):
                what, sound["codec"] = {"codec": "mpeg2video", "tick": Fraction(1, 25)}, "mp2"
            times_s = [start_s + k / 25 for k in range(round(seconds * 25))]
            data += make_clip(f"piece_{name}", times_s=times_s, sounds=[sound], **what).read_bytes()
        path = make_clip(name, seconds=0.04)
        path.write_bytes(data)
        return path

    return run


def times_and_onsets(path: Path, **options: Any) -> tuple[list[float], list[float]]:
    """The times of the frames, and those at which sound begins after silence."""
    info = probe(path)
    audio = choose_audio(info, None)
    zero_s = clock_zero(info, info.video[0], audio)
    times_s = [frame.time_s for frame in read_frames(info, zero_s=zero_s, **options)]
    windows = read_windows(info, rate_hz=RATE_HZ, stream=audio, zero_s=zero_s, **options)
    found = [(window.index, window.samples) for window in windows]
    loud = np.abs(np.concatenate([samples for _, samples in found])) > 0.2
    at = np.flatnonzero(loud)
    begins = at[np.diff(at, prepend=-RATE_HZ) > RATE_HZ // 20]
    return times_s, [found[0][0] + int(sample) / RATE_HZ for sample in begins]


@pytest.mark.parametrize(
    ("name", "starts_s"),
    [
        ("reset.ts", [1.4, 1.4]),
        ("back.ts", [100, 1.4]),
        ("forward.ts", [1.4, 100]),
        ("hour.ts", [1.4, 4000]),
        ("days.ts", [1.4, 80_000, 3]),
        ("three.ts", [50, 1.4, 2000]),
        ("wraps.ts", [95_443.2]),
        ("wrap_within.ts", [1000, 939.5]),
        ("reset.mpg", [1.4, 1.4]),
        ("back.mpg", [100, 1.4]),
        ("hour.mpg", [1.4, 4000]),
        ("continues.ts", [1.4, 2.4]),
    ],
)
def test_pictures_and_sound_go_on_together_where_the_clock_jumps(
    join: Join, name: str, starts_s: list[float]
) -> None:
    times_s, onsets_s = times_and_onsets(join(name, starts_s))
    assert len(times_s) == 25 * len(starts_s)
    assert np.diff(times_s) == pytest.approx(np.full(len(times_s) - 1, 0.04), abs=0.03)
    assert times_s[-1] - times_s[0] == pytest.approx(len(starts_s) - 0.04, abs=0.03)
    # Each piece's sound begins with its frame 12.
    assert onsets_s == pytest.approx([times_s[25 * k + 12] for k in range(len(starts_s))], abs=0.01)


@pytest.mark.parametrize("sound_s", [0.8, 1.3])
def test_sound_stays_in_step_if_it_is_shorter_or_longer_than_the_pictures(
    join: Join, sound_s: float
) -> None:
    times_s, onsets_s = times_and_onsets(join("a.ts", [1.4, 1.4, 1.4], sound_s=sound_s))
    assert len(times_s) == 75
    begins_s = [times_s[25 * k + 12] for k in range(3)]
    assert onsets_s == pytest.approx(begins_s, abs=0.01)


def test_overlapping_pieces_keep_every_frame_and_cut_the_sound(join: Join) -> None:
    times_s, onsets_s = times_and_onsets(join("overlap.ts", [1.4, 2.38]))
    assert len(times_s) == 50
    assert np.diff(times_s)[24] == pytest.approx(0.02, abs=1e-3)
    assert onsets_s == pytest.approx([times_s[12], times_s[37]], abs=0.01)


@pytest.mark.parametrize("name", ["a.ts", "a.mpg"])
def test_a_range_after_a_jump_is_that_of_the_whole(join: Join, name: str) -> None:
    clip = join(name, [1.4, 300, 1.4])
    whole_s, onsets_s = times_and_onsets(clip)
    some_s, some_onsets_s = times_and_onsets(clip, start_s=2.2, stop_s=2.9)
    assert some_s == pytest.approx([time_s for time_s in whole_s if 2.2 <= time_s < 2.9])
    assert some_onsets_s[-1] == pytest.approx(onsets_s[-1])


def test_a_long_recording_is_not_decoded_before_the_range(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = join("long.ts", [1.4], seconds=14)
    whole = list(read_frames(probe(clip)))[-5:]
    decoded = []
    decode = av.Packet.decode
    monkeypatch.setattr(
        "av2tsam_cli.media.container.decode_packet",
        lambda packet, _damage: decoded.append(packet) or list(decode(packet)),
    )
    some = list(read_frames(probe(clip), start_s=whole[0].time_s))
    assert [frame.time_s for frame in some] == pytest.approx([frame.time_s for frame in whole])
    np.testing.assert_array_equal([f.rgb for f in some], [f.rgb for f in whole])
    assert len(decoded) < 14 * 25


def test_a_reset_clock_in_a_format_that_should_not_have_one(join: Join) -> None:
    clip = join("live.flv", [5.0])
    tags = clip.read_bytes()
    clip.write_bytes(tags + tags[13:])  # without the second header
    times_s, onsets_s = times_and_onsets(clip)
    assert len(times_s) == 50
    assert onsets_s == pytest.approx([times_s[12], times_s[37]], abs=0.04)


def test_one_wrong_time_does_not_move_the_rest() -> None:
    clock, times_s = Clock(jumps=True), []
    for tick in [0, 1, 2, 3, 90_000, 5, 6, 7]:
        packet = av.Packet(b"x")
        packet.pts = packet.dts = tick
        packet.duration, packet.time_base = 1, Fraction(1, 25)
        clock.correct(packet)
        times_s.append(float((packet.pts or 0) * packet.time_base))
    assert times_s == pytest.approx([k / 25 for k in range(8)])
