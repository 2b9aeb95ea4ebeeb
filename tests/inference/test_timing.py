"""Windows that contain no change: nano on generated sounds whose changes are known."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.inference.loading import load_model
from av2tsam_cli.inference.timing import cut_at_changes
from av2tsam_cli.media.audio import split_windows
from av2tsam_cli.synth.sounds import synthesise
from av2tsam_cli.values import AudioWindow

RATE_HZ = 16_000
Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def clap() -> ClapEmbedder:
    return load_model("nano", device="cpu", precision="fp32").network.clap


def sound(name: str, seconds: float) -> Samples:
    return synthesise(name, np.random.default_rng(3), seconds, RATE_HZ, -16.0)


def cut(
    samples: Samples, clap: ClapEmbedder, silence_dbfs: float | None = -60.0, **options: float
) -> list[AudioWindow]:
    seconds = split_windows(samples, RATE_HZ, rate_hz=RATE_HZ)
    return [*cut_at_changes(seconds, clap, silence_dbfs=silence_dbfs, **options)]


def changes(windows: list[AudioWindow]) -> list[float]:
    return [b.start_s for a, b in pairwise(windows) if a.piece != b.piece]


def assert_complete(windows: list[AudioWindow], end_s: float) -> None:
    assert windows[0].start_s == 0
    assert windows[-1].end_s == pytest.approx(end_s)
    assert all(a.end_s == b.start_s for a, b in pairwise(windows))
    assert [window.index for window in windows] == list(range(len(windows)))
    assert all(window.samples.shape == (RATE_HZ,) for window in windows)


def test_changes_fall_where_one_sound_replaces_another(clap: ClapEmbedder) -> None:
    lengths = {"siren": 2.37, "bee": 1.81, "trumpet": 2.82}
    windows = cut(np.concatenate([sound(*each) for each in lengths.items()]), clap)
    assert_complete(windows, 7)
    assert changes(windows) == pytest.approx([2.37, 4.18], abs=0.1)


def test_windows_do_not_reach_across_a_change(clap: ClapEmbedder) -> None:
    first, second = sound("siren", 2.4), sound("bee", 0.8)
    windows = cut(np.concatenate([first, second, first]), clap)
    change_s = next(b.start_s for a, b in pairwise(windows) if b.piece == 1)
    before = [window for window in windows if window.piece == 0]
    for window in before:
        found = np.correlate(first, window.samples[: RATE_HZ // 2], "valid").argmax()
        assert found + RATE_HZ <= round(change_s * RATE_HZ)
    short = next(window for window in windows if window.piece == 1)
    length = round((short.end_s - short.start_s) * RATE_HZ)
    assert np.array_equal(short.samples[:100], short.samples[length : length + 100])  # repeated


def test_whole_seconds_without_a_change_are_the_windows_of_the_paper(clap: ClapEmbedder) -> None:
    samples = sound("siren", 4)
    windows = cut(samples, clap)
    assert [window.span_s for window in windows] == [(k, k + 1) for k in range(4)]
    for second, window in enumerate(windows):
        assert np.array_equal(window.samples, samples[second * RATE_HZ :][:RATE_HZ])


def test_silence_begins_and_ends_exactly(clap: ClapEmbedder) -> None:
    quiet = np.zeros(round(1.46 * RATE_HZ), np.float32)
    windows = cut(np.concatenate([sound("siren", 2.3), quiet, sound("siren", 2.24)]), clap)
    assert changes(windows) == pytest.approx([2.3, 3.76], abs=0.03)
    silent = [window.is_silent(-60.0) for window in windows]
    assert silent == [2.3 <= window.start_s + 0.03 < 3.76 for window in windows]


def test_nothing_is_cut_in_digital_silence(clap: ClapEmbedder) -> None:
    windows = cut(np.zeros(3 * RATE_HZ, np.float32), clap)
    assert_complete(windows, 3)
    assert changes(windows) == []


def test_long_sound_is_cut_the_same_and_memory_does_not_grow(clap: ClapEmbedder) -> None:
    """Sounds change every 5.3 s for 53 s; at no time is more than 20 s of sound kept."""
    turns = [sound(("siren", "bee")[k % 2], 5.3) for k in range(10)]
    read = 0

    def seconds() -> Iterator[AudioWindow]:
        nonlocal read
        for window in split_windows(np.concatenate(turns), RATE_HZ, rate_hz=RATE_HZ):
            read = window.index + 1
            yield window

    windows = []
    for window in cut_at_changes(seconds(), clap, silence_dbfs=-60.0):
        windows.append(window)
        assert read - window.start_s <= 20
    assert_complete(windows, 53)
    assert changes(windows) == pytest.approx([5.3 * k for k in range(1, 10)], abs=0.15)


def test_context_stays_within_the_piece(clap: ClapEmbedder) -> None:
    windows = cut(np.concatenate([sound("siren", 6.4), sound("bee", 3.6)]), clap, context_s=5)
    change_s = changes(windows)[0]
    for window in windows:
        assert window.embedding is None
        assert window.context is not None
        piece_s = change_s if window.piece == 0 else 10 - change_s
        assert len(window.context) == pytest.approx(min(5, piece_s) * RATE_HZ, abs=1)


def test_a_gap_in_the_seconds_starts_a_new_piece(clap: ClapEmbedder) -> None:
    seconds = [*split_windows(sound("siren", 5), RATE_HZ, rate_hz=RATE_HZ)]
    windows = [*cut_at_changes([*seconds[:2], *seconds[4:]], clap, silence_dbfs=None)]
    assert [window.span_s for window in windows] == [(0, 1), (1, 2), (4, 5)]


def test_the_end_of_a_track_within_a_second_is_not_a_change(clap: ClapEmbedder) -> None:
    """The last second is filled with zeros; the last frames belong to the sound before them."""
    for seconds in (0.8, 3.3, 4.6):
        windows = cut(sound("siren", seconds), clap)
        assert_complete(windows, np.ceil(seconds))
        assert changes(windows) == []
