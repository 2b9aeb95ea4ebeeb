"""Sounds: levels and rhythm, and clear differences between categories."""

from dataclasses import replace

import numpy as np
import pytest

from av2tsam_cli.synth.scenes import CATEGORIES, sample_scene, scene_rng
from av2tsam_cli.synth.sounds import background_noise, soundtrack, synthesise, voice_track
from av2tsam_cli.synth.values import BackgroundNoise, Scene, Turns, Voice
from av2tsam_cli.values import Float32Array

RATE_HZ = 16_000
NAMES = [category.name for category in CATEGORIES]
every_category = pytest.mark.parametrize("category", NAMES)


def dbfs(samples: Float32Array) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20))


@every_category
@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_a_sound_has_its_length_and_stays_in_range(category: str, rate_hz: int) -> None:
    for seed in range(5):
        sound = synthesise(category, np.random.default_rng(seed), 1.5, rate_hz)
        assert sound.shape == (round(1.5 * rate_hz),)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() < 1
        assert -31 < dbfs(sound) < -7


@every_category
def test_the_same_seed_gives_the_same_sound_and_another_a_different_one(category: str) -> None:
    first, again, other = (
        synthesise(category, np.random.default_rng(seed), 1.0, RATE_HZ) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@every_category
def test_no_second_of_a_sound_is_silent(category: str) -> None:
    for seed in range(8):
        sound = synthesise(category, np.random.default_rng(seed), 5.0, RATE_HZ, level_dbfs=-15)
        windows = [sound[s : s + RATE_HZ] for s in range(0, 4 * RATE_HZ + 1, RATE_HZ // 8)]
        assert min(map(dbfs, windows)) > dbfs(sound) - 8


@every_category
def test_the_requested_level_is_kept(category: str) -> None:
    sound = synthesise(category, np.random.default_rng(0), 3.0, RATE_HZ, level_dbfs=-30)
    assert dbfs(sound) == pytest.approx(-30, abs=0.1)


@every_category
def test_nothing_lies_above_the_band_of_16_khz(category: str) -> None:
    sound = synthesise(category, np.random.default_rng(3), 2.0, 48_000)
    power = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / 48_000)
    assert power[hz > 8000].sum() < 0.01 * power.sum()


def features(sound: Float32Array) -> np.ndarray:
    """Mean and spread over time of the log energy in 40 bands."""
    pieces = sound[: len(sound) // 512 * 512].reshape(-1, 512) * np.hanning(512)
    power = np.abs(np.fft.rfft(pieces)) ** 2
    edges = np.unique(np.geomspace(2, 257, 41).astype(int))
    log = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-7)
    return np.concatenate([log.mean(0) - log.mean(), log.std(0)])


def test_one_second_identifies_the_category() -> None:
    """The nearest of 20 known sounds of each category is nearly always of the right category."""
    known, queries = (
        np.array(
            [
                [features(synthesise(n, np.random.default_rng(s), 1.0, RATE_HZ)) for s in seeds]
                for n in NAMES
            ]
        )
        for seeds in (range(20), range(100, 110))
    )
    spread = known.reshape(-1, known.shape[-1]).std(axis=0)
    gaps = ((queries[:, :, None, None] - known) / spread) ** 2
    nearest = gaps.sum(axis=-1).min(axis=-1).argmin(axis=-1)
    assert (nearest == np.arange(len(NAMES))[:, None]).mean() > 0.9


def quiet_scene() -> Scene:
    scene = sample_scene(scene_rng("test", 0, 0), subset="s4")
    instances = tuple(replace(i, voice=None) for i in scene.instances)
    return replace(scene, instances=instances, off_screen=None, noise=None)


def test_a_source_sounds_only_in_its_seconds() -> None:
    on = (False, True, True, False, True)
    voice = Voice("siren", 5, -12.0, ((1, 3), (4, 5)))
    track = soundtrack(replace(quiet_scene(), off_screen=voice), RATE_HZ).reshape(5, RATE_HZ)
    for second, sounds in zip(track, on, strict=True):
        assert bool(second.any()) == sounds
        if sounds:
            assert dbfs(second) > -14
    edges = np.abs(np.diff(track.reshape(-1)))[RATE_HZ - 2 : RATE_HZ + 2]
    assert edges.max() < 0.01  # faded, no click


@every_category
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_an_aligned_turn_is_audible_from_its_start_to_its_end(category: str, rate_hz: int) -> None:
    for seed in range(4):
        voice = Voice(category, seed, -20.0, ((0.64, 1.41), (2.3, 5.0)), aligned=True)
        track = voice_track(voice, 5, rate_hz)
        hop = rate_hz // 100
        level = np.sqrt(np.square(track).reshape(-1, hop).mean(axis=1))
        on = np.concatenate([level[64:141], level[230:]])
        (audible,) = np.nonzero(level > 0.2 * np.sqrt(np.mean(np.square(on))))
        first, second = audible[audible < 200], audible[audible >= 200]
        assert 64 <= first[0] <= 69
        assert 131 <= first[-1] < 141
        assert 230 <= second[0] <= 235
        assert second[-1] >= 490
        assert max(np.diff(first).max(), np.diff(second).max()) < 100  # no long pause
        assert not track[: 64 * hop].any()
        assert not track[141 * hop : 230 * hop].any()


@pytest.mark.parametrize("turns", [((2.0, 1.0),), ((0.0, 2.0), (1.0, 3.0)), ((1.0, 1.0),)])
def test_turns_must_increase(turns: Turns) -> None:
    with pytest.raises(ValueError, match="must increase"):
        Voice("dog", 1, -20.0, turns)


def test_the_sound_track_is_the_sum_of_its_sources() -> None:
    first, second = (Voice(n, 1, -20.0, ((0, 5),)) for n in ("bee", "bell"))
    scene = quiet_scene()
    seen = replace(scene.instances[0], voice=first)
    track = soundtrack(replace(scene, instances=(seen,), off_screen=second), RATE_HZ)
    both = voice_track(first, 5, RATE_HZ) + voice_track(second, 5, RATE_HZ)
    np.testing.assert_allclose(track, both, atol=1e-6)


def test_a_loud_mix_does_not_clip() -> None:
    voice = Voice("trumpet", 1, -3.0, ((0, 5),))
    scene = quiet_scene()
    noise = BackgroundNoise(1, "white", -3.0)
    track = soundtrack(replace(scene, off_screen=voice, noise=noise), RATE_HZ)
    assert np.abs(track).max() <= 0.971


def test_a_scene_without_sources_is_silent_or_noise() -> None:
    assert not soundtrack(quiet_scene(), RATE_HZ).any()
    noisy = replace(quiet_scene(), noise=BackgroundNoise(4, "pink", -40.0))
    assert dbfs(soundtrack(noisy, RATE_HZ)) == pytest.approx(-40, abs=0.1)


@pytest.mark.parametrize("colour", ["white", "pink", "brown", "hum"])
def test_noise_has_its_colour(colour: str) -> None:
    noise = background_noise(BackgroundNoise(2, colour, -30.0), 2.0, RATE_HZ)  # type: ignore[arg-type]
    power = np.abs(np.fft.rfft(noise)) ** 2
    hz = np.fft.rfftfreq(len(noise), 1 / RATE_HZ)
    low = power[hz < 500].sum() / power.sum()
    lowest, highest = {
        "white": (0.02, 0.1), "pink": (0.3, 0.7), "brown": (0.85, 1.0), "hum": (0.9, 1.0)
    }[colour]  # fmt: skip
    assert lowest <= low <= highest
