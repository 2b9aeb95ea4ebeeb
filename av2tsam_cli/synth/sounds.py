"""The sound of each category, and the sound track of a scene.

Everything is synthesised below 7.5 kHz, with filters specified in hertz, so that a sound is the
same at 16 kHz and at 48 kHz. A source that sounds has at least one event in every second.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from av2tsam_cli.synth.values import BackgroundNoise, Scene, Voice
from av2tsam_cli.values import Float32Array

TOP_HZ = 7500.0
"""Highest frequency of partials and noise."""
LEVEL_DBFS = (-30.0, -8.0)
"""Range of root-mean-square levels."""
_PEAK = 0.97
_FADE_S = 0.008
_PAUSE_S = 1
"""No sound pauses for this long."""
_HOP_S = 0.01
_TABLE = 2048

Samples = npt.NDArray[np.float32]
Formants = Sequence[tuple[float, float, float]]
"""Centre in hertz, bandwidth in hertz, linear gain of each resonance."""


def synthesise(
    category: str,
    rng: np.random.Generator,
    seconds: float,
    rate_hz: int,
    level_dbfs: float | None = None,
) -> Float32Array:
    """Make the sound of one instance of a category.

    Args:
        category: Name of the category.
        rng: Source of pitch, rhythm and timbre (and of the level if none is given).
        seconds: Length.
        rate_hz: Samples per second.
        level_dbfs: Root-mean-square level; sounds with high peaks end up below it.

    Returns:
        Mono samples, float32, (round(seconds * rate_hz),), within [-0.97, 0.97].
    """
    level = rng.uniform(*LEVEL_DBFS) if level_dbfs is None else level_dbfs
    count = round(seconds * rate_hz)
    return _levelled(VOICES[category](rng, count, rate_hz)[:count], level)


def background_noise(noise: BackgroundNoise, seconds: float, rate_hz: int) -> Float32Array:
    """Make background noise: white, pink, brown or mains hum."""
    rng = np.random.default_rng(noise.seed)
    count = round(seconds * rate_hz)
    if noise.colour == "hum":
        mains = 50.0 if rng.random() < 0.5 else 60.0
        weights = [1.0, 0.5, 0.4, 0.15, 0.2]
        sound = _tone(_phase(np.full(count, mains, np.float32), rate_hz), weights)
        sound = sound + 0.15 * _noise(rng, count, rate_hz, 40, TOP_HZ, slope=-0.5)
    else:
        slope = {"white": 0.0, "pink": -0.5, "brown": -1.0}[noise.colour]
        sound = _noise(rng, count, rate_hz, 40, TOP_HZ, slope=slope)
    return _levelled(sound, noise.level_dbfs)


def soundtrack(scene: Scene, rate_hz: int) -> Float32Array:
    """Mix a scene's sources and its noise.

    Returns:
        Mono samples, float32, (duration_s * rate_hz,). Each source sounds only in its own turns,
        with fades of a few milliseconds inside them.
    """
    mix = np.zeros(scene.duration_s * rate_hz, np.float32)
    for voice in scene.voices:
        mix += voice_track(voice, scene.duration_s, rate_hz)
    if scene.noise:
        mix += background_noise(scene.noise, scene.duration_s, rate_hz)
    peak = float(np.abs(mix).max(initial=0.0))
    return mix * np.float32(_PEAK / peak) if peak > _PEAK else mix


def voice_track(voice: Voice, duration_s: int, rate_hz: int) -> Float32Array:
    """Return one source over a whole scene, float32, silent outside its turns.

    If the voice is aligned, what is heard of an intermittent sound begins within 50 ms of the
    beginning of each turn and ends within 100 ms of its end.
    """
    rng = np.random.default_rng(voice.seed)
    spare_s = 3 * _PAUSE_S if voice.aligned else 0
    sound = synthesise(voice.category, rng, duration_s + spare_s, rate_hz, voice.level_dbfs)
    ramp = np.linspace(0, 1, max(2, round(_FADE_S * rate_hz)), dtype=np.float32)
    track = np.zeros(duration_s * rate_hz, np.float32)
    for turn in voice.turns:
        start, stop = (round(time_s * rate_hz) for time_s in turn)
        piece = _aligned(sound, start, stop, rate_hz) if voice.aligned else sound[start:stop].copy()
        piece[: len(ramp)] *= ramp
        piece[-len(ramp) :] *= ramp[::-1]
        track[start:stop] = piece
    return track


def _aligned(sound: Samples, start: int, stop: int, rate_hz: int) -> Samples:
    """Cut `stop - start` samples that begin as an event begins and end as one ends.

    If nothing begins within a second, the sound hardly pauses, and the cut begins anywhere. To end
    with an event, the second half comes from a little earlier in the sound than it should: the
    rhythm stumbles once.

    Args:
        sound: A sound that is `3 * _PAUSE_S` longer than its scene.
        start: Start of the turn in the scene, in samples.
        stop: Its end.
        rate_hz: Samples per second.
    """
    count, half, hop = stop - start, (stop - start) // 2, round(_HOP_S * rate_hz)
    audible = _audible_hops(sound, hop)
    earliest = start + _PAUSE_S * rate_hz  # after a spare second, into which the end can reach
    rises = hop * (np.flatnonzero(audible[1:] & ~audible[:-1]) + 1)
    first = int(min(rises[rises >= earliest], default=earliest))
    first = first if first < earliest + _PAUSE_S * rate_hz else earliest
    last = hop * (int(np.flatnonzero(audible[: (first + count) // hop])[-1]) + 1)
    head, tail = sound[first : first + half], sound[last - (count - half) : last].copy()
    blend = np.linspace(0, 1, round(_FADE_S * rate_hz), dtype=np.float32)
    tail[: len(blend)] *= blend
    tail[: len(blend)] += (1 - blend) * sound[first + half :][: len(blend)]
    return np.concatenate([head, tail])


def _audible_hops(sound: Samples, hop: int) -> npt.NDArray[np.bool_]:
    """Return for each `hop` samples whether they are less than 10 dB below the sound's level."""
    power = np.square(sound[: len(sound) // hop * hop]).reshape(-1, hop).mean(axis=1)
    return np.asarray(power > 0.1 * power.mean())


def _levelled(sound: Samples, level_dbfs: float) -> Float32Array:
    """Scale to a level, or as close to it as the peaks allow."""
    rms = float(np.sqrt(np.mean(np.square(sound)))) + 1e-9
    peak = float(np.abs(sound).max(initial=0.0)) + 1e-9
    return (sound * np.float32(min(10 ** (level_dbfs / 20) / rms, _PEAK / peak))).astype(np.float32)


# Building blocks ----------------------------------------------------------------------------------


def _time(count: int, rate_hz: int) -> Samples:
    return np.arange(count, dtype=np.float32) / np.float32(rate_hz)


def _phase(hz: npt.NDArray[np.floating], rate_hz: int) -> npt.NDArray[np.float64]:
    """Return the running phase of a varying pitch, in cycles."""
    return np.cumsum(hz, dtype=np.float64) / rate_hz


def _tone(phase: npt.NDArray[np.float64], weights: Sequence[float] | Samples) -> Samples:
    """Read a wavetable with the given harmonics at a running phase in cycles."""
    spectrum = np.zeros(_TABLE // 2 + 1, np.complex64)
    used = np.asarray(weights, np.float32)[: _TABLE // 2]
    spectrum[1 : len(used) + 1] = used * np.exp(2.4j * np.arange(len(used)) ** 1.5)
    table = np.fft.irfft(spectrum).astype(np.float32) * _TABLE / 2
    return np.asarray(table[(phase * _TABLE).astype(np.int64) & (_TABLE - 1)], np.float32)


def _harmonics(hz: float, tilt: float, top_hz: float = TOP_HZ) -> Samples:
    """Return weights k ** -tilt of all harmonics of a pitch up to a frequency."""
    k = np.arange(1, max(2, int(top_hz / hz) + 1), dtype=np.float32)
    return k ** np.float32(-tilt)


def _shaped(hz: float, formants: Formants, tilt: float = 0.5) -> Samples:
    """Return the weights of a pitch's harmonics after the resonances."""
    weights = _harmonics(hz, tilt)
    return weights * _resonance(hz * np.arange(1, len(weights) + 1, dtype=np.float32), formants)


def _resonance(hz: Samples, formants: Formants) -> Samples:
    gain = np.full_like(hz, 0.012)
    for centre, width, height in formants:
        gain += np.float32(height) / (1 + ((hz - np.float32(centre)) / np.float32(width / 2)) ** 2)
    return gain


def _noise(
    rng: np.random.Generator,
    count: int,
    rate_hz: int,
    low_hz: float,
    high_hz: float,
    *,
    slope: float = 0.0,
    formants: Formants = (),
) -> Samples:
    """Return noise between two frequencies with unit level, amplitude ~ frequency ** slope."""
    length = 1 << (count - 1).bit_length() if count > 1 else 2
    hz = np.fft.rfftfreq(length, 1 / rate_hz).astype(np.float32)
    low, high = np.searchsorted(hz, (low_hz, min(high_hz, TOP_HZ, rate_hz / 2)))
    band = hz[low:high]
    gain = np.maximum(band, 20.0) ** np.float32(slope)
    if formants:
        gain = gain * _resonance(band, formants)
    spectrum = np.zeros(len(hz), np.complex64)
    spectrum[low:high] = gain * np.exp(2j * np.pi * rng.random(len(band), dtype=np.float32))
    noise = np.fft.irfft(spectrum)[:count].astype(np.float32)
    return noise / np.float32(np.sqrt(np.mean(np.square(noise))) + 1e-9)


def _slow(rng: np.random.Generator, count: int, rate_hz: int, change_hz: float) -> Samples:
    """Return a random curve in [-1, 1] that changes direction about `change_hz` times a second."""
    knots = rng.uniform(-1, 1, max(4, int(count / rate_hz * change_hz) + 4))
    at = np.linspace(0, len(knots) - 1, count)
    return np.interp(at, np.arange(len(knots)), knots).astype(np.float32)


def _onsets(
    rng: np.random.Generator, count: int, rate_hz: int, period_s: float, jitter: float = 0.08
) -> list[int]:
    """Return sample positions of events about a period apart; the first may lie before 0."""
    first = rng.uniform(-0.5, 0.5) * period_s
    number = int(count / rate_hz / period_s) + 2
    times = first + period_s * (np.arange(number) + jitter * rng.uniform(-1, 1, number))
    return [int(t * rate_hz) for t in times]


def _place(mix: Samples, event: Samples, at: int, gain: float = 1.0) -> None:
    """Add an event to a mix at a position, clipped to the mix."""
    start, stop = max(at, 0), min(at + len(event), len(mix))
    if stop > start:
        mix[start:stop] += np.float32(gain) * event[start - at : stop - at]


def _swell(count: int, rate_hz: int, attack_s: float, release_s: float) -> Samples:
    """Return an envelope that rises, holds and falls."""
    t = _time(count, rate_hz)
    end = count / rate_hz
    return np.asarray(np.clip(np.minimum(t / attack_s, (end - t) / release_s), 0, 1), np.float32)


def _arch(u: Samples) -> Samples:
    """Return half a sine over [0, 1], clipped at zero, because rounding would make roots fail."""
    return np.asarray(np.clip(np.sin(np.pi * u), 0, 1), np.float32)


def _decay(count: int, rate_hz: int, decay_s: float, attack_s: float = 0.002) -> Samples:
    """Return an envelope with a short attack that falls to 1/e in `decay_s`."""
    t = _time(count, rate_hz)
    return np.asarray(np.exp(-t / decay_s) * np.minimum(t / attack_s, 1), np.float32)


def _repeat(
    rng: np.random.Generator,
    count: int,
    rate_hz: int,
    period_s: float,
    events: Sequence[Samples],
    *,
    jitter: float = 0.08,
    order: Sequence[int] = (),
) -> Samples:
    """Return events in a rhythm, in a given or random order."""
    mix = np.zeros(count, np.float32)
    for k, at in enumerate(_onsets(rng, count, rate_hz, period_s, jitter)):
        which = order[k % len(order)] if order else int(rng.integers(len(events)))
        _place(mix, events[which], at, rng.uniform(0.75, 1.0))
    return mix


# Categories ---------------------------------------------------------------------------------------


def _dog(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Barks: a falling voiced burst under two formants, with rough noise."""
    pitch, period_s = rng.uniform(260, 620), rng.uniform(0.36, 0.62)
    formants = [(rng.uniform(600, 900), 300.0, 1.0), (rng.uniform(1300, 1900), 500.0, 0.6)]
    barks = []
    for _ in range(2):
        length = int(rng.uniform(0.14, 0.22) * rate_hz)
        u = np.linspace(0, 1, length, dtype=np.float32)
        hz = pitch * rng.uniform(0.92, 1.08) * (0.75 + 0.6 * _arch(u**0.6) - 0.25 * u)
        voiced = _tone(_phase(hz, rate_hz), _shaped(pitch, formants))
        rough = _noise(rng, length, rate_hz, 300, 5000, formants=formants)
        level = float(np.sqrt(np.mean(voiced**2)))
        barks.append((voiced + 0.7 * level * rough) * _arch(np.sqrt(u)) ** 2)
    return _repeat(rng, count, rate_hz, period_s, barks)


def _bird(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Chirps: short whistles whose pitch sweeps fast, in trills of a few shapes."""
    centre, period_s = rng.uniform(2600, 5000), rng.uniform(0.13, 0.3)
    chirps = []
    for _ in range(3):
        length = int(rng.uniform(0.06, min(0.13, period_s * 0.8)) * rate_hz)
        u = np.linspace(0, 1, length, dtype=np.float32)
        sweep = rng.uniform(0.12, 0.35) * (1 if rng.random() < 0.5 else -1)
        wobble = rng.uniform(0.0, 0.08) * np.sin(2 * np.pi * rng.uniform(2, 5) * u)
        hz = np.clip(
            centre * rng.uniform(0.85, 1.15) * (1 + sweep * (2 * u - 1) + wobble), 1500, 7200
        )
        chirps.append(_tone(_phase(hz, rate_hz), [1.0]) * _arch(u))
    return _repeat(rng, count, rate_hz, period_s, chirps, jitter=0.15)


def _bell(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Strikes with inharmonic partials, each with its own decay."""
    pitch, period_s = rng.uniform(420, 1100), rng.uniform(0.4, 0.8)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.74, 3.0, 3.76, 4.07, 5.4])
    weights = np.array([0.5, 0.8, 0.7, 0.35, 1.0, 0.55, 0.3, 0.4, 0.25, 0.25])
    ring_s = rng.uniform(0.5, 1.1)
    t = _time(int(min(1.4, 2.5 * ring_s) * rate_hz), rate_hz)
    strike = np.zeros_like(t)
    for ratio, weight in zip(ratios, weights * rng.uniform(0.6, 1.2, len(weights)), strict=True):
        hz = pitch * ratio * rng.uniform(0.995, 1.005)
        if hz < TOP_HZ:
            partial = np.sin(np.float32(2 * np.pi * hz) * t)
            strike += (
                np.float32(weight) * partial * np.exp(-t * np.float32((0.6 + 0.4 * ratio) / ring_s))
            )
    strike *= np.minimum(t / 0.002, 1)
    return _repeat(rng, count, rate_hz, period_s, [strike], jitter=0.04)


def _drum(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Thumps: a low tone that falls while it decays, after a short slap of noise."""
    pitch, period_s = rng.uniform(65, 150), rng.uniform(0.22, 0.5)
    thumps = []
    for accent in (1.0, rng.uniform(0.5, 0.9)):
        length = int(0.45 * rate_hz)
        t = _time(length, rate_hz)
        hz = (
            pitch
            * (1 + rng.uniform(0.6, 1.4) * np.exp(-t / 0.035))
            * (1.0 if accent == 1 else 1.25)
        )
        body = _tone(_phase(hz, rate_hz), [1.0, 0.25, 0.1]) * _decay(
            length, rate_hz, rng.uniform(0.09, 0.16)
        )
        slap = _noise(rng, length, rate_hz, 150, 2200, slope=-0.3) * _decay(length, rate_hz, 0.018)
        thumps.append(np.float32(accent) * (body + np.float32(rng.uniform(0.25, 0.5)) * slap))
    return _repeat(rng, count, rate_hz, period_s, thumps, jitter=0.03)


def _guitar(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Plucked strings (Karplus-Strong) in an arpeggio of five notes of a pentatonic scale."""
    root, period_s = rng.uniform(110, 260), rng.uniform(0.16, 0.36)
    steps = np.array([0, 3, 5, 7, 10, 12, 15])
    notes = [root * 2 ** (s / 12) for s in rng.choice(steps, 4, replace=False)]
    plucks = [_pluck(rng, hz, 0.9, rate_hz) for hz in notes]
    return _repeat(rng, count, rate_hz, period_s, plucks, jitter=0.04)


def _pluck(rng: np.random.Generator, hz: float, seconds: float, rate_hz: int) -> Samples:
    """Karplus-Strong: a burst of noise that is averaged once per period.

    The averaging is a product in the spectrum of one period, so all periods are made at once. The
    string's losses are set per second and per frequency, not per sample, to sound the same at every
    sampling rate.
    """
    period = max(8, round(rate_hz / hz))
    periods = int(seconds * rate_hz / period) + 1
    harmonic_hz = np.fft.rfftfreq(period, 1 / rate_hz).astype(np.float32)
    burst = np.exp(2j * np.pi * rng.random(len(harmonic_hz))) * (harmonic_hz + hz) ** -0.7
    burst[(harmonic_hz < 1) | (harmonic_hz > 6000)] = 0
    loss_per_s = 2.0 + 22.0 * (harmonic_hz / 3000) ** 2 + 4.0 * harmonic_hz / 3000
    age_s = np.arange(periods, dtype=np.float32)[:, None] * (period / rate_hz)
    waves = np.fft.irfft(burst * np.exp(-age_s * loss_per_s), n=period, axis=1)
    pluck = waves.reshape(-1).astype(np.float32)
    pluck *= _swell(len(pluck), rate_hz, 0.002, 0.05)
    return pluck / np.float32(np.abs(pluck).max())


def _car(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """An idling or revving engine: low harmonics, uneven from stroke to stroke, and rumble."""
    pitch = rng.uniform(38, 80)
    revs = 1 + rng.uniform(0.03, 0.25) * _slow(rng, count, rate_hz, 1.5)
    phase = _phase(pitch * revs, rate_hz)
    tone = _tone(phase, _harmonics(pitch, rng.uniform(0.5, 0.9), 900))
    stroke = 1 + rng.uniform(0.3, 0.7) * np.sin(np.pi * phase).astype(np.float32)
    rumble = _noise(rng, count, rate_hz, 40, 700, slope=-0.6)
    level = np.float32(np.sqrt(np.mean(tone**2)))
    return tone * stroke + np.float32(rng.uniform(0.3, 0.7)) * level * rumble * stroke


def _siren(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """A wail that sweeps up and down between two pitches."""
    low = rng.uniform(480, 750)
    high, rate = low * rng.uniform(1.7, 2.4), rng.uniform(0.9, 2.6)
    cycle = rate * _time(count, rate_hz) + np.float32(rng.random())
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * cycle)
    hz = low * (high / low) ** swing
    return _tone(_phase(hz, rate_hz), [1.0, 0.35, 0.45, 0.12, 0.15])


_VOWELS: tuple[Formants, ...] = (
    ((750, 110, 1.0), (1200, 130, 0.7), (2600, 180, 0.3)),  # a
    ((480, 90, 1.0), (1850, 150, 0.5), (2550, 180, 0.3)),  # e
    ((300, 80, 1.0), (2250, 170, 0.45), (3000, 220, 0.35)),  # i
    ((480, 90, 1.0), (860, 110, 0.6), (2500, 180, 0.15)),  # o
    ((330, 80, 1.0), (750, 110, 0.4), (2400, 180, 0.12)),  # u
)


def _singer(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Sung vowels: a voice with vibrato under formants, a new note and vowel now and then."""
    root, larger = rng.uniform(150, 420), rng.uniform(0.95, 1.2)
    mix = np.zeros(count, np.float32)
    rate, depth, at = (
        rng.uniform(4.8, 6.6),
        rng.uniform(0.015, 0.035),
        -int(rng.uniform(0, 0.4) * rate_hz),
    )
    while at < count:
        length = int(rng.uniform(0.45, 1.0) * rate_hz)
        t = _time(length, rate_hz)
        hz = root * 2 ** (int(rng.choice((0, 2, 4, 5, 7))) / 12)
        wave = hz * (1 + depth * np.sin(2 * np.pi * rate * t) * np.minimum(t / 0.15, 1))
        vowel = [(f * larger, w, g) for f, w, g in _VOWELS[int(rng.integers(len(_VOWELS)))]]
        note = _tone(_phase(wave, rate_hz), _shaped(hz, vowel, 0.9))
        note /= np.float32(np.sqrt(np.mean(note**2)))
        _place(mix, note * _swell(length, rate_hz, 0.06, 0.08), at, rng.uniform(0.75, 1.0))
        at += int(0.96 * length)
    return mix


def _clock(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Tick and tock: two dry clicks of high resonances, alternating and very even."""
    period_s, pitch = rng.uniform(0.16, 0.34), rng.uniform(2200, 4200)
    clicks = []
    for ratio in (1.0, rng.uniform(0.7, 0.85)):
        length = int(0.08 * rate_hz)
        t = _time(length, rate_hz)
        click = np.zeros(length, np.float32)
        for partial, decay_s in ((1.0, 0.012), (1.63, 0.007), (0.41, 0.016)):
            hz = min(pitch * ratio * partial, TOP_HZ)
            click += np.sin(np.float32(2 * np.pi * hz) * t) * np.exp(-t / np.float32(decay_s))
        clicks.append(click)
    return _repeat(rng, count, rate_hz, period_s, clicks, jitter=0.0, order=(0, 1))


def _kettle(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """A steady whistle with an overtone, a little unstable, over hissing steam."""
    pitch = rng.uniform(1700, 2900)
    hz = pitch * (
        1
        + 0.012 * _slow(rng, count, rate_hz, 6)
        + rng.uniform(0, 0.04) * _slow(rng, count, rate_hz, 1)
    )
    whistle = _tone(_phase(hz, rate_hz), [1.0, rng.uniform(0.1, 0.4)])
    whistle *= 1 + np.float32(0.15) * _slow(rng, count, rate_hz, 12)
    hiss = _noise(rng, count, rate_hz, 2500, TOP_HZ)
    return whistle + np.float32(rng.uniform(0.12, 0.3)) * hiss


def _phone(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Ring bursts: two tones that alternate about twenty times a second, with pauses."""
    low = rng.uniform(800, 1250)
    high, trill_hz = low * rng.uniform(1.2, 1.35), rng.uniform(15, 24)
    ring_s, pause_s = rng.uniform(0.28, 0.45), rng.uniform(0.1, 0.22)
    t = _time(int(ring_s * rate_hz), rate_hz)
    hz = np.where(np.sin(2 * np.pi * trill_hz * t) > 0, low, high)
    ring = _tone(_phase(hz, rate_hz), [1.0, 0.2, 0.35, 0.0, 0.12])
    ring *= _swell(len(ring), rate_hz, 0.004, 0.01)
    return _repeat(rng, count, rate_hz, ring_s + pause_s, [ring], jitter=0.0)


def _trumpet(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Held brassy notes: many strong harmonics, brightest a moment after the tongue's attack."""
    root, at = rng.uniform(220, 440), -int(rng.uniform(0, 0.3) * rate_hz)
    mix = np.zeros(count, np.float32)
    brass: Formants = (
        (rng.uniform(1100, 1500), 1500.0, 1.0),
        (rng.uniform(2300, 2900), 1600.0, 0.5),
    )
    while at < count:
        length = int(rng.uniform(0.28, 0.6) * rate_hz)
        t = _time(length, rate_hz)
        hz = root * 2 ** (int(rng.choice((0, 4, 7, 12))) / 12)
        wave = hz * (1 + 0.006 * np.sin(2 * np.pi * 5.2 * t) - 0.03 * np.exp(-t / 0.02))
        phase = _phase(wave, rate_hz)
        soft, bright = _tone(phase, _harmonics(hz, 1.6)), _tone(phase, _shaped(hz, brass, 0.1))
        blend = np.minimum(t / 0.05, 1) * (1 - 0.3 * t / t[-1])
        note = soft / np.abs(soft).max() * (1 - blend) + bright / np.abs(bright).max() * blend
        _place(mix, note * _swell(length, rate_hz, 0.02, 0.05), at, rng.uniform(0.8, 1.0))
        at += int(length * rng.uniform(1.0, 1.12))
    return mix


def _frog(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Croaks: quick trains of resonant pulses."""
    pulses_hz, centre = rng.uniform(28, 60), rng.uniform(380, 800)
    length = int(rng.uniform(0.2, 0.34) * rate_hz)
    u = np.linspace(0, 1, length, dtype=np.float32)
    cycle = _phase(pulses_hz * (0.8 + 0.4 * u), rate_hz) % 1.0
    age_s = cycle / pulses_hz
    hz = centre * (0.9 + 0.2 * u)
    ringing = np.sin(2 * np.pi * hz * age_s) + 0.7 * np.sin(2 * np.pi * 2.3 * hz * age_s)
    croak = (ringing * np.exp(-age_s / 0.006) * np.sqrt(_arch(u))).astype(np.float32)
    period_s = length / rate_hz + rng.uniform(0.08, 0.25)
    return _repeat(rng, count, rate_hz, period_s, [croak])


def _bee(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """A buzz: a sawtooth whose pitch wanders and whose loudness flutters."""
    pitch = rng.uniform(155, 255)
    wander = 0.07 * _slow(rng, count, rate_hz, 3) + 0.015 * _slow(rng, count, rate_hz, 20)
    buzz = _tone(
        _phase(pitch * (1 + wander), rate_hz), _harmonics(pitch, rng.uniform(0.6, 0.9), 5500)
    )
    flutter_hz = rng.uniform(5, 11)
    flutter = 1 + rng.uniform(0.2, 0.5) * np.sin(2 * np.pi * flutter_hz * _time(count, rate_hz))
    return np.asarray(buzz * flutter * (1 + 0.25 * _slow(rng, count, rate_hz, 4)), np.float32)


def _helicopter(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Rotor blades: broadband noise chopped ten to fourteen times a second, with low thuds."""
    chops_hz = rng.uniform(10, 14)
    cycle = (chops_hz * _time(count, rate_hz) + np.float32(rng.random())) % 1
    chop = np.exp(-cycle / np.float32(rng.uniform(0.18, 0.3))) * np.minimum(cycle / 0.04, 1)
    noise = _noise(rng, count, rate_hz, 60, 3500, slope=rng.uniform(-0.6, -0.3))
    thud = np.sin(2 * np.pi * rng.uniform(70, 110) / chops_hz * cycle) * np.exp(-cycle / 0.15)
    return np.asarray((chop + 0.06) * noise + np.float32(0.5) * thud, np.float32)


def _maraca(rng: np.random.Generator, count: int, rate_hz: int) -> Samples:
    """Shakes: bursts of high noise in a quick rhythm of strong and weak ones."""
    period_s, decay_s = rng.uniform(0.11, 0.2), rng.uniform(0.02, 0.04)
    low_hz = rng.uniform(2800, 4200)
    shakes = []
    for accent in (1.0, 0.5, 0.75):
        length = int(0.16 * rate_hz)
        burst = _noise(rng, length, rate_hz, low_hz, TOP_HZ) * _decay(
            length, rate_hz, decay_s, 0.012
        )
        shakes.append(np.float32(accent) * burst)
    order = ((0, 1), (0, 1, 2, 1), (0, 1, 1))[int(rng.integers(3))]
    return _repeat(rng, count, rate_hz, period_s, shakes, jitter=0.05, order=order)


VOICES: dict[str, Callable[[np.random.Generator, int, int], Samples]] = {
    "dog": _dog,
    "bird": _bird,
    "bell": _bell,
    "drum": _drum,
    "guitar": _guitar,
    "car": _car,
    "siren": _siren,
    "singer": _singer,
    "clock": _clock,
    "kettle": _kettle,
    "phone": _phone,
    "trumpet": _trumpet,
    "frog": _frog,
    "bee": _bee,
    "helicopter": _helicopter,
    "maraca": _maraca,
}
