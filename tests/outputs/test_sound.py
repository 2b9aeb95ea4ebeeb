"""The original sound in overlay videos: joined and changing tracks, PCM, gaps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.media.audio import read_channels, read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import probe

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
Job = Callable[..., list[float]]
CONTAINERS = (".mp4", ".mov", ".mkv", ".webm")
RATE_HZ = 16_000


def sound_of(path: Path, zero_s: float = 0.0) -> npt.NDArray[np.float32]:
    windows = read_windows(probe(path), rate_hz=RATE_HZ, zero_s=zero_s)
    return np.concatenate([window.samples for window in windows])


def loud_s(path: Path, zero_s: float = 0.0) -> list[tuple[float, float]]:
    """From when to when there is sound."""
    at = np.flatnonzero(np.abs(sound_of(path, zero_s)) > 0.2) / RATE_HZ
    breaks = np.flatnonzero(np.diff(at) > 0.05)
    return list(zip(at[[0, *(breaks + 1)]], at[[*breaks, -1]], strict=True))


def pitch_hz(samples: npt.NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * RATE_HZ / len(samples)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_joined_pieces_have_all_pictures_and_sound(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str
) -> None:
    clip = make_clip("a.ts", sounds=[{"samples": tone(1)}])
    clip.write_bytes(clip.read_bytes() * 2)
    times_s = job(clip, tmp_path / f"out{suffix}")
    result = probe(tmp_path / f"out{suffix}")
    found = [frame.time_s for frame in read_frames(result, zero_s=0.0)]
    assert len(found) == 50
    assert found == pytest.approx(times_s, abs=1e-3)
    [(begin_s, end_s)] = loud_s(result.path)
    assert begin_s == pytest.approx(0, abs=0.05)
    assert end_s == pytest.approx(times_s[-1], abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize(
    "change", [{"rate_hz": 44_100}, {"rate_hz": 22_050}, {"channels": 2}], ids=str
)
def test_rate_and_channels_can_change(
    make_clip: MakeClip,
    job: Job,
    tone: Tone,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    change: dict[str, int],
) -> None:
    first = make_clip("a.ts", sounds=[{"samples": tone(1)}]).read_bytes()
    rate_hz = change.get("rate_hz", 48_000)
    sound = {"samples": tone(1, rate_hz, channels=change.get("channels", 1)), "rate_hz": rate_hz}
    second = make_clip("b.ts", sounds=[sound]).read_bytes()
    clip = make_clip("both.ts", seconds=0.04)
    clip.write_bytes(first + second)
    job(clip, tmp_path / f"out{suffix}")
    samples = sound_of(tmp_path / f"out{suffix}")
    assert pitch_hz(samples[3200:12_800]) == pytest.approx(440, abs=4)
    assert pitch_hz(samples[19_200:28_800]) == pytest.approx(440, abs=4)
    assert np.abs(samples[19_200:28_800]).max() == pytest.approx(0.5, abs=0.1)
    [(_, end_s)] = loud_s(tmp_path / f"out{suffix}")
    assert end_s == pytest.approx(2, abs=0.08)
    assert "change at 1.0" in caplog.text or suffix == ".webm"


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("pcm_s16le", ".mp4"),
        ("pcm_s16le", ".mov"),
        ("pcm_s16le", ".webm"),
        ("aac", ".mp4"),
        ("aac", ".webm"),
        ("libopus", ".mp4"),
    ],
)
def test_a_gap_in_the_sound_stays_where_it_is(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, suffix: str, codec: str
) -> None:
    sound = {"samples": tone(3), "codec": codec, "gap": (47 * 1024, 94 * 1024)}
    clip = make_clip("gap.mkv", seconds=3, sounds=[sound])
    job(clip, tmp_path / f"out{suffix}")
    was, found = loud_s(clip), loud_s(tmp_path / f"out{suffix}")
    assert [span for span in found if span[1] - span[0] > 0.1] == [
        pytest.approx(span, abs=0.03) for span in was if span[1] - span[0] > 0.1
    ]


@pytest.mark.parametrize(
    ("codec", "suffix", "stored"),
    [
        ("pcm_s16le", ".mp4", "pcm_s16le"),
        ("pcm_s16le", ".mov", "pcm_s16le"),
        ("pcm_s16le", ".mkv", "pcm_s16le"),
        ("pcm_s16be", ".mov", "pcm_s16be"),
        ("pcm_s24le", ".mov", "pcm_s24le"),
        ("pcm_f32le", ".mov", "pcm_f32le"),
        ("pcm_f64le", ".mov", "pcm_f64le"),
        ("pcm_u8", ".mkv", "pcm_u8"),
    ],
)
def test_pcm_is_kept_bit_by_bit(
    make_clip: MakeClip,
    job: Job,
    tmp_path: Path,
    codec: str,
    suffix: str,
    stored: str,
) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 48_000)).astype(np.float32)
    clip = make_clip("a.mkv", sounds=[{"samples": noise, "codec": codec}])
    start_s = 0.52 if suffix == ".mov" else 0.0
    job(clip, tmp_path / f"out{suffix}", start_s=start_s)
    before, after = probe(clip), probe(tmp_path / f"out{suffix}")
    assert after.audio[0].codec == stored
    np.testing.assert_array_equal(
        read_channels(after, after.audio[0]),
        read_channels(before, before.audio[0])[:, round(start_s * 48_000) :],
    )


@pytest.mark.parametrize("codec", ["pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_s16be"])
def test_pcm_that_players_of_mp4_do_not_support_is_re_encoded(
    make_clip: MakeClip,
    job: Job,
    tone: Tone,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    codec: str,
) -> None:
    clip = make_clip("a.mkv", sounds=[{"samples": tone(1), "codec": codec}])
    job(clip, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").audio[0].codec == "aac"
    assert f"re-encoded as aac, because .mp4 does not support {codec}" in caplog.text
    assert pitch_hz(sound_of(tmp_path / "out.mp4")[:RATE_HZ]) == pytest.approx(440, abs=4)


def test_overlapping_packets_do_not_delay_what_follows(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path
) -> None:
    data = b""
    for start_s in (1.4, 2.36, 3.32):
        burst = np.concatenate([np.zeros((1, 24_000), np.float32), tone(0.5)], axis=1)
        sound: dict[str, Any] = {"samples": burst, "start_s": start_s}
        times_s = [start_s + k / 25 for k in range(24)]
        data += make_clip("piece.ts", times_s=times_s, sounds=[sound]).read_bytes()
    clip = make_clip("all.ts", seconds=0.04)
    clip.write_bytes(data)
    for suffix in (".mp4", ".mkv"):
        job(clip, tmp_path / f"out{suffix}")
        with av.open(str(tmp_path / f"out{suffix}")) as container:
            track = container.streams.audio[0]
            ends_s = [float(p.pts * p.time_base) for p in container.demux(track) if p.pts]
        steps_s = np.diff(ends_s)
        assert 0.01 < steps_s.min() < steps_s.max() < 0.035
        found = [begin_s for begin_s, end_s in loud_s(tmp_path / f"out{suffix}")]
        assert found == pytest.approx([0.52, 1.48, 2.44], abs=0.02)


def test_corrupted_packets_of_a_transport_stream_are_left_out(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = make_clip("a.ts", seconds=2, sounds=[{"samples": tone(2)}])
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        headers = [bytes(p)[:7] for p in container.demux(audio=0) if p.size]
    for header in headers[30:33]:
        at = data.find(header)
        data[at + 6] = data[at + 6] & 0xFC | 2  # three frames in a packet, which has one
        data[at + 1] &= 0xFE  # and a checksum, which it has not
    clip.write_bytes(data)
    for suffix in (".mp4", ".mkv"):
        job(clip, tmp_path / f"out{suffix}")
        assert loud_s(tmp_path / f"out{suffix}")[-1][1] == pytest.approx(2, abs=0.1)
    assert "corrupted audio packets left out" in caplog.text


def test_a_small_step_back_after_a_gap_is_no_jump(
    make_clip: MakeClip, job: Job, tone: Tone, tmp_path: Path
) -> None:
    data = b""
    for start_s, seconds in ((1.4, 1.0), (2.9, 0.001), (2.856, 1.0)):
        sound = {"samples": tone(seconds), "start_s": start_s}
        times_s = [start_s + k / 25 for k in range(round(seconds * 25) or 1)]
        data += make_clip("piece.ts", times_s=times_s, sounds=[sound]).read_bytes()
    clip = make_clip("all.ts", seconds=0.04)
    clip.write_bytes(data)
    for suffix in (".mp4", ".mkv"):
        times_s = job(clip, tmp_path / f"out{suffix}")
        assert len(times_s) == 51
        assert loud_s(tmp_path / f"out{suffix}")[-1][1] == pytest.approx(times_s[-1], abs=0.1)
