"""One-second windows: their position, their content, and resampling compared with librosa."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import librosa
import numpy as np
import numpy.typing as npt
import pytest
from av.stream import Disposition

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media.audio import choose_audio, read_channels, read_windows
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.values import AudioWindow

from ..conftest import write_sound

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
RATE_HZ = 16_000


def windows_of(path: Path, **options: Any) -> list[AudioWindow]:
    info = probe(path)
    zero_s = clock_zero(info, info.video[0], choose_audio(info, None))
    return list(read_windows(info, **{"rate_hz": RATE_HZ, "zero_s": zero_s, **options}))


def joined(windows: list[AudioWindow]) -> npt.NDArray[np.float32]:
    return np.concatenate([window.samples for window in windows])


def noise(seconds: float, rate_hz: int, channels: int = 1) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(3)
    wave = rng.uniform(-0.5, 0.5, (channels, round(seconds * rate_hz)))
    return wave.astype(np.float32)


def sounding(samples: npt.NDArray[np.float32], rate_hz: int = RATE_HZ) -> list[bool]:
    """Whether each tenth of a second has sound."""
    tenths = samples.reshape(-1, rate_hz // 10)
    return [bool(np.abs(tenth).max() > 0.05) for tenth in tenths]


def test_audio_that_declares_too_much_is_not_decoded(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", {"samples": np.zeros((1, 480)), "codec": "pcm_s16le"})
    data = bytearray(path.read_bytes())
    data[24:28] = (1_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"a.wav: its audio .* declares 1000000000 Hz and 1 chan"):
        choose_audio(probe(path, need_video=False), None)


def test_windows_tile_the_track_and_the_last_is_padded(make_clip: MakeClip, tone: Tone) -> None:
    sound = {"samples": tone(2.5), "codec": "pcm_s16le"}
    windows = windows_of(make_clip("a.mov", sounds=[sound]))
    assert [window.index for window in windows] == [0, 1, 2]
    assert all(window.samples.shape == (RATE_HZ,) for window in windows)
    assert all(window.samples.dtype == np.float32 for window in windows)
    assert sounding(joined(windows)) == [True] * 25 + [False] * 5


@pytest.mark.parametrize("source_hz", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_resampling_equals_librosa_on_the_whole_track(
    make_clip: MakeClip, source_hz: int, rate_hz: int
) -> None:
    samples = noise(2.3, source_hz, channels=2)
    sound = {"samples": samples, "rate_hz": source_hz, "codec": "pcm_s16le"}
    windows = windows_of(make_clip("a.mov", sounds=[sound]), rate_hz=rate_hz)
    stored = (samples * 32767).astype(np.int16).mean(axis=0, dtype=np.float64) / 32768
    whole = librosa.resample(
        stored.astype(np.float32), orig_sr=source_hz, target_sr=rate_hz, res_type="soxr_hq"
    )
    np.testing.assert_allclose(joined(windows)[: len(whole)], whole, atol=2e-5)


def test_channels_are_averaged(make_clip: MakeClip, tone: Tone) -> None:
    left_only = np.concatenate([tone(1), np.zeros((1, 48_000), np.float32)])
    sound = {"samples": left_only, "codec": "pcm_s16le"}
    windows = windows_of(make_clip("a.mov", sounds=[sound]), rate_hz=48_000)
    assert np.abs(windows[0].samples).max() == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac"]
)
def test_every_sample_format_has_the_same_scale(
    make_clip: MakeClip, tone: Tone, codec: str
) -> None:
    clip = make_clip("a.mkv", sounds=[{"samples": tone(1, channels=2), "codec": codec}])
    samples = joined(windows_of(clip, rate_hz=48_000))
    np.testing.assert_allclose(samples[:48_000], tone(1)[0], atol=0.02)


def test_compressed_audio_keeps_its_position(make_clip: MakeClip, tone: Tone) -> None:
    burst = np.zeros((1, 96_000), np.float32)
    burst[:, 48_000:72_000] = tone(0.5)
    for name, codec in (("a.mp4", "aac"), ("a.webm", "libopus"), ("a.mkv", "libmp3lame")):
        video = "libvpx-vp9" if name.endswith("webm") else "libx264"
        clip = make_clip(name, codec=video, seconds=2, sounds=[{"samples": burst, "codec": codec}])
        loud = np.flatnonzero(np.abs(joined(windows_of(clip))) > 0.2) / RATE_HZ
        assert loud[0] == pytest.approx(1.0, abs=0.005)
        assert loud[-1] == pytest.approx(1.5, abs=0.005)


@pytest.mark.parametrize("name", ["late.mov", "late.mkv"])
def test_late_track_is_silent_until_it_starts(make_clip: MakeClip, tone: Tone, name: str) -> None:
    sound = {"samples": tone(1), "start_s": 1.5, "codec": "pcm_s16le"}
    windows = windows_of(make_clip(name, seconds=3, sounds=[sound]))
    assert [window.index for window in windows] == [0, 1, 2]
    assert sounding(joined(windows)) == [False] * 15 + [True] * 10 + [False] * 5


def test_late_video_does_not_move_the_audio(make_clip: MakeClip, tone: Tone) -> None:
    sound = {"samples": tone(1), "codec": "pcm_s16le"}
    windows = windows_of(make_clip("a.mov", times_s=[0.7, 0.8, 0.9], sounds=[sound]))
    assert sounding(joined(windows)) == [True] * 10


def test_gap_in_the_track_is_silence(make_clip: MakeClip, tone: Tone) -> None:
    # Chunks of 1024 samples: seconds 0.981 to 2.005 are missing.
    gap = (46 * 1024, 94 * 1024)
    sound = {"samples": tone(3), "codec": "pcm_s16le", "gap": gap}
    samples = joined(windows_of(make_clip("gap.mkv", seconds=3, sounds=[sound])))
    quiet = np.flatnonzero(np.abs(samples) < 1e-4) / RATE_HZ
    inside = quiet[(quiet > 0.99) & (quiet < 2.0)]
    assert len(inside) >= 0.99 * RATE_HZ
    assert sounding(samples)[21:30] == [True] * 9


@pytest.mark.parametrize("seconds", [1, 7])
def test_unreadable_audio_is_named(make_clip: MakeClip, tone: Tone, seconds: int) -> None:
    clip = make_clip(seconds=1, sounds=[{"samples": tone(seconds)}])
    info = probe(clip)
    with av.open(str(clip)) as container:
        spans = [(p.pos or 0, p.size) for p in container.demux(audio=0) if p.size]
    data = bytearray(clip.read_bytes())
    for begin, size in spans:
        data[begin : begin + size] = b"\xff" * size
    clip.write_bytes(data)
    with pytest.raises(MediaError, match=r"its audio \(stream 1, aac\) is unreadable.*`text`"):
        list(read_windows(info, rate_hz=RATE_HZ))


def test_windows_start_with_the_one_that_contains_start(make_clip: MakeClip) -> None:
    sound = {"samples": noise(6, 44_100), "rate_hz": 44_100, "codec": "pcm_s16le"}
    clip = make_clip("a.mov", seconds=6, sounds=[sound])
    everything = windows_of(clip)
    some = windows_of(clip, start_s=3.4, stop_s=4.5)
    assert [window.index for window in some] == [3, 4]
    for window in some:
        np.testing.assert_allclose(window.samples, everything[window.index].samples, atol=1e-5)
    assert [window.index for window in windows_of(clip, stop_s=2.0)] == [0, 1]


def test_start_after_the_end_of_the_track(make_clip: MakeClip, tone: Tone) -> None:
    clip = make_clip(seconds=4, sounds=[{"samples": tone(1)}])
    assert windows_of(clip, start_s=3) == []


def test_no_audio_stream(make_clip: MakeClip) -> None:
    info = probe(make_clip())
    assert choose_audio(info, None) is None
    assert list(read_windows(info, rate_hz=RATE_HZ)) == []


def test_choosing_a_stream(make_clip: MakeClip, tone: Tone) -> None:
    info = probe(
        make_clip(
            "a.mkv",
            sounds=[
                {"samples": tone(1), "language": "eng", "disposition": 0},
                {"samples": tone(1), "language": "deu", "disposition": Disposition.default},
            ],
        )
    )
    assert choose_audio(info, None) == info.audio[1]
    assert choose_audio(info, 0) == info.audio[0]
    assert choose_audio(info, "1") == info.audio[1]
    assert choose_audio(info, "ENG") == info.audio[0]
    with pytest.raises(UsageError, match=r"no audio stream 2; it has 0 \(eng\), 1 \(deu\)"):
        choose_audio(info, 2)
    with pytest.raises(UsageError, match="no audio stream fra"):
        choose_audio(info, "fra")


def test_level_of_a_window(make_clip: MakeClip, tone: Tone) -> None:
    sound = {"samples": tone(1), "start_s": 1.0, "codec": "pcm_s16le"}
    silent, loud = windows_of(make_clip("a.mov", seconds=2, sounds=[sound]), rate_hz=48_000)
    assert silent.level_dbfs == float("-inf")
    assert loud.level_dbfs == pytest.approx(-9.03, abs=0.05)


@pytest.mark.parametrize(
    ("codec", "step"), [("pcm_s16le", 2**-15), ("pcm_u8", 2**-7), ("pcm_f32le", 2**-15)]
)
def test_channels_are_read_as_stored(
    tmp_path: Path, make_clip: MakeClip, codec: str, step: float
) -> None:
    samples = np.stack([noise(0.5, RATE_HZ)[0], np.full(RATE_HZ // 2, 0.25, np.float32)])
    clip = make_clip("clip.mkv", sounds=[{"samples": samples, "rate_hz": RATE_HZ, "codec": codec}])
    info = probe(clip)
    read = read_channels(info, info.audio[0])
    assert read.dtype == np.float32
    assert read.shape == samples.shape
    assert np.allclose(read, samples, atol=2 * step)
