"""When sources change: embeddings of overlapping windows, spectra and levels made by hand."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.timeline.changes import HOP_S, find_changes, find_silences, refine_change

Float32Array = npt.NDArray[np.float32]


def embed(
    turns: list[tuple[int, float]], noise: float = 0.0
) -> tuple[Float32Array, npt.NDArray[np.float64]]:
    """Embed windows of sounds that last for some seconds each: mixtures in proportion to time."""
    rng = np.random.default_rng(0)
    sounds = rng.normal(size=(8, 32))
    sounds /= np.linalg.norm(sounds, axis=1, keepdims=True)
    ends = np.cumsum([length for _, length in turns])
    starts = np.arange(0, ends[-1] - 1 + 1e-6, HOP_S)
    rows = []
    for start in starts:
        bounds = np.clip(np.concatenate([[0.0], ends]), start, start + 1)
        rows.append(
            sum(sounds[k] * (b - a) for (k, _), (a, b) in zip(turns, pairwise(bounds), strict=True))
        )
    noisy = np.array(rows) + noise * rng.normal(size=(len(rows), 32)) / np.sqrt(32)
    return noisy.astype(np.float32), np.stack([starts, starts + 1], axis=1)


def test_changes_are_found_wherever_they_are() -> None:
    turns = [(0, 1.37), (1, 1.54), (2, 0.94), (0, 2.33), (3, 3.0)]
    expected = np.cumsum([length for _, length in turns])[:-1]
    assert find_changes(*embed(turns)) == pytest.approx(list(expected), abs=0.05)
    assert find_changes(*embed(turns, noise=0.3)) == pytest.approx(list(expected), abs=0.12)


def test_a_source_that_joins_another_is_a_change() -> None:
    embeddings, spans_s = embed([(0, 3.1), (1, 3.0)])
    both = (embeddings + embed([(0, 6.1)])[0]) / 2
    assert find_changes(both, spans_s) == pytest.approx([3.1], abs=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6])
def test_a_lasting_sound_has_no_changes(noise: float) -> None:
    assert find_changes(*embed([(0, 12.0)], noise)) == []


def test_no_windows_have_no_changes() -> None:
    assert find_changes(np.zeros((0, 32), np.float32), np.zeros((0, 2))) == []


def spectra(change_s: float, *, pauses: bool = False) -> Float32Array:
    """Spectra every 10 ms of 4 s: low noise, then high noise; with pauses, each in short bursts."""
    rng = np.random.default_rng(1)
    times = np.arange(400) * 0.01
    late = times >= change_s
    bands = np.full((400, 32), -60.0)
    bands[~late, :8] = -20
    bands[late, 16:24] = -20
    if pauses:
        bands[(times * 5 % 1 > 0.5)] = -60
    return (bands + rng.normal(0, 2, bands.shape)).astype(np.float32)


@pytest.mark.parametrize("rough_s", [1.8, 2.13, 2.4])
def test_a_change_moves_to_where_the_spectra_change(rough_s: float) -> None:
    assert refine_change(spectra(2.13), 0.01, rough_s, 0, 4) == pytest.approx(2.13, abs=0.011)


def test_pauses_within_a_sound_are_not_taken_for_its_end() -> None:
    found = refine_change(spectra(2.13, pauses=True), 0.01, 2.3, 0, 4)
    assert found == pytest.approx(2.13, abs=0.1)


def test_a_change_stays_if_there_is_too_little_to_compare() -> None:
    assert refine_change(spectra(2.13), 0.01, 2.0, 1.9, 2.1) == 2.0


def test_silences_of_a_second_are_found_and_pauses_are_not() -> None:
    rate_hz = 8_000
    loud = np.full(5 * rate_hz, 0.1, np.float32)
    loud[int(1.3 * rate_hz) : int(2.5 * rate_hz)] = 0
    loud[int(3.0 * rate_hz) : int(3.6 * rate_hz)] = 0
    assert find_silences(loud, rate_hz, -60.0) == pytest.approx([1.3, 2.5], abs=0.02)
    assert find_silences(loud, rate_hz, None) == []
    assert find_silences(np.zeros(3 * rate_hz, np.float32), rate_hz, -60.0) == []
