"""Read audio as one-second mono windows on the presentation clock, resampled while streaming."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import floor
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import soxr
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media.container import (
    MAX_CHANNELS,
    MAX_RATE_HZ,
    can_decode,
    decode_from,
    frame_time_s,
)
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.values import AudioStream, AudioWindow, Float32Array, MediaInfo

GAP_S = 0.01
"""Jumps in a track's timestamps below this are rounding (Matroska: milliseconds), not gaps."""
SILENCE_CHUNK = 48_000
"""Samples of silence that are in memory at a time to fill a gap."""
MANY_CHANNELS = 8
"""Number of channels from which on PyAV miscounts the planes of a frame."""
PREROLL_S = 1
"""Whole seconds to decode before the first window, for the resampler and the decoder to settle."""


def choose_audio(info: MediaInfo, wanted: int | str | None) -> AudioStream | None:
    """Return the audio stream to use.

    Args:
        info: The file, as probed.
        wanted: Index among the audio streams, or a language tag such as `eng`; None for the
            default stream, if there is any.

    Raises:
        UsageError: The file has no such stream.
        MediaError: The sample rate or the number of channels of the stream is not supported.
    """
    stream = _find_audio(info, wanted)
    if stream is not None and not can_decode(stream.rate_hz, stream.channels):
        raise MediaError(
            f"{info.path}: its audio (stream {stream.index}, {stream.codec}) declares "
            f"{stream.rate_hz} Hz and {stream.channels} channels, of at most {MAX_RATE_HZ} Hz and "
            f"{MAX_CHANNELS} channels; re-encode it, or choose another `audio_stream`"
        )
    return stream


def _find_audio(info: MediaInfo, wanted: int | str | None) -> AudioStream | None:
    if wanted is None:
        return max(info.audio, key=lambda stream: stream.default, default=None)
    text = str(wanted)
    if text.isdigit():
        found = info.audio[int(text) : int(text) + 1]
    else:
        found = tuple(s for s in info.audio if (s.language or "").lower() == text.lower())
    if not found:
        present = ", ".join(f"{k} ({s.language or 'und'})" for k, s in enumerate(info.audio))
        raise UsageError(f"{info.path}: no audio stream {text}; it has {present or 'none'}")
    return found[0]


def read_windows(
    info: MediaInfo,
    *,
    rate_hz: int,
    stream: AudioStream | None = None,
    zero_s: float | None = None,
    start_s: float = 0.0,
    stop_s: float | None = None,
    damage: DamageLog | None = None,
) -> Iterator[AudioWindow]:
    """Yield the one-second windows that overlap the range from start_s to stop_s.

    Windows are complete, even if start_s or stop_s is inside one. They end with the track. The last
    window, a late start and gaps are padded with zeros.

    Args:
        info: The file, as probed.
        rate_hz: Sample rate of the windows.
        stream: The audio stream; None for the default one.
        zero_s: Start of the presentation on the file's own clock (see `clock_zero`); None for the
            start of the stream.
        start_s: Seconds on the presentation clock.
        stop_s: Seconds on the presentation clock; None for the end of the track.
        damage: Collects damage, and decides whether it is an error; None to report it at the end,
            and to raise an error if the file is truncated.

    Raises:
        MediaError: The file cannot be read, a long section is corrupted, or it is truncated.
    """
    stream = stream or choose_audio(info, None)
    if stream is None:
        return
    zero_s = stream.start_s if zero_s is None else zero_s
    first = max(0, floor(start_s))
    begin = max(0, first - PREROLL_S)
    decoded = decode_from(info.path, stream.index, begin + zero_s, threads=1, damage=damage)
    check_end = partial((damage or DamageLog(info.path)).end, info, stream, zero_s)
    checked = with_end(cast("Iterator[AudioFrame]", decoded), zero_s, check_end)
    frames = contiguous(checked, begin + zero_s)
    windows = _cut(_resample(frames, rate_hz), rate_hz)
    for index, samples in enumerate(windows, start=begin):
        if stop_s is not None and index >= stop_s:
            return
        if index >= first:
            yield AudioWindow(samples=samples, index=index, rate_hz=rate_hz)


def with_end(
    frames: Iterable[AudioFrame], zero_s: float, check_end: Callable[[float], None]
) -> Iterator[AudioFrame]:
    """Yield frames, then check where they end, in seconds of the presentation."""
    end_s = 0.0
    for frame in frames:
        yield frame
        if (file_s := frame_time_s(frame)) is not None:
            end_s = file_s - zero_s + frame.samples / frame.sample_rate
    check_end(end_s)


def split_windows(
    samples: npt.NDArray[Any], sample_rate: int, *, rate_hz: int
) -> Iterator[AudioWindow]:
    """Yield the one-second windows of audio in memory; the last one is padded with zeros.

    Args:
        samples: Float in [-1, 1] or integers, (n,) or (channels, n).
        sample_rate: Samples per second.
        rate_hz: Sample rate of the windows.

    Raises:
        UsageError: The samples have a wrong shape.
    """
    if samples.ndim not in {1, 2} or not samples.shape[0]:
        raise UsageError(f"`audio` must have the shape (n,) or (channels, n), not {samples.shape}")
    stored = samples if samples.ndim == 2 else samples[None]
    mono = _mix(stored)
    if sample_rate != rate_hz:
        import librosa  # takes seconds to import

        mono = librosa.resample(mono, orig_sr=sample_rate, target_sr=rate_hz)
    for index, window in enumerate(_cut(iter((mono,)), rate_hz)):
        yield AudioWindow(samples=window, index=index, rate_hz=rate_hz)


def contiguous(frames: Iterable[AudioFrame], begin_s: float) -> Iterator[AudioFrame]:
    """Yield continuous audio from a time on: gaps are filled with silence, overlaps are cut.

    The position of a frame is counted in samples. To avoid crackling, it is corrected by the
    timestamp only if they differ by more than rounding.

    Args:
        frames: Decoded frames.
        begin_s: Start of the audio, in seconds on the file's own clock.
    """
    end_s: float | None = None  # end of the last frame
    filled_s = 0.0  # end of the last frame that was yielded; a frame can end before `begin_s`
    for frame in map(_readable, frames):
        rate_hz = frame.sample_rate
        file_s = frame_time_s(frame)
        at_s = end_s if file_s is None else file_s - begin_s
        if at_s is None or (end_s is not None and abs(at_s - end_s) <= GAP_S):
            at_s = end_s or 0.0
        end_s = at_s + frame.samples / rate_hz
        missing = round((at_s - filled_s) * rate_hz)
        yield from _silence(missing, frame)
        if missing >= 0:
            yield frame
        elif -missing < frame.samples:
            yield _with_samples(frame, _planar(frame)[:, -missing:])
        filled_s = max(filled_s, end_s)


def _silence(samples: int, like: AudioFrame) -> Iterator[AudioFrame]:
    """Yield silence in the format of a frame, in small chunks."""
    stored = _planar(like)
    level = 128 if stored.dtype == np.uint8 else 0
    for begin in range(0, samples, SILENCE_CHUNK):
        shape = stored.shape[0], min(SILENCE_CHUNK, samples - begin)
        yield _with_samples(like, np.full(shape, level, stored.dtype))


def _with_samples(like: AudioFrame, samples: npt.NDArray[Any]) -> AudioFrame:
    """Return a frame with samples, (channels, n), in the format of another frame."""
    data = samples if like.format.is_planar else samples.T.reshape(1, -1)
    frame = AudioFrame.from_ndarray(
        np.ascontiguousarray(data), format=like.format.name, layout=like.layout
    )
    frame.sample_rate = like.sample_rate
    return frame


def read_channels(info: MediaInfo, stream: AudioStream) -> Float32Array:
    """Return the whole track, float32 in [-1, 1], (channels, samples).

    Raises:
        MediaError: The file cannot be read, or contains no audio that can be decoded.
    """
    decoded = cast("Iterator[AudioFrame]", decode_from(info.path, stream.index, None))
    chunks = [_to_scale(data := _planar(frame), data.dtype) for frame in map(_readable, decoded)]
    if not chunks:
        raise MediaError(f"{info.path}: its audio cannot be decoded; copy it again")
    return np.concatenate(chunks, axis=1).astype(np.float32)


def _mix(samples: npt.NDArray[Any]) -> Float32Array:
    """Return the mean of the channels of samples (channels, n), float32 in [-1, 1]."""
    mean = _to_scale(samples.mean(axis=0, dtype=np.float64), samples.dtype)
    return cast("Float32Array", mean.astype(np.float32))


def _readable(frame: AudioFrame) -> AudioFrame:
    """Interleave many channels, because PyAV crashes on frames with 8 or more planes."""
    if not frame.format.is_planar or frame.layout.nb_channels < MANY_CHANNELS:
        return frame
    [interleaved] = AudioResampler(format=frame.format.packed).resample(frame)
    return interleaved


def _planar(frame: AudioFrame) -> npt.NDArray[Any]:
    """Return the samples, (channels, n), in their stored type."""
    data = cast("npt.NDArray[Any]", frame.to_ndarray())
    return data if frame.format.is_planar else data.reshape(-1, len(frame.layout.channels)).T


def _to_scale(samples: npt.NDArray[Any], stored: np.dtype[Any]) -> npt.NDArray[Any]:
    """Scale samples of the given stored type to [-1, 1]."""
    if stored == np.uint8:
        return (samples - 128.0) / 128.0
    return samples / -float(np.iinfo(stored).min) if stored.kind == "i" else samples


def _resample(frames: Iterator[AudioFrame], rate_hz: int) -> Iterator[Float32Array]:
    """Mix to mono and resample, like `librosa.resample` (soxr_hq) with a whole track."""
    resampler: soxr.ResampleStream | None = None
    source_hz = None
    for frame in frames:
        if source_hz != frame.sample_rate:  # the first frame, or the sample rate changes
            if resampler is not None:
                yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            source_hz = frame.sample_rate
            resampler = (
                None
                if source_hz == rate_hz
                else soxr.ResampleStream(source_hz, rate_hz, 1, dtype="float32", quality="HQ")
            )
        samples = _mix(_planar(frame))
        yield samples if resampler is None else resampler.resample_chunk(samples)
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _cut(chunks: Iterator[Float32Array], rate_hz: int) -> Iterator[Float32Array]:
    """Yield pieces of exactly one second; the last one is padded with zeros."""
    pending: list[Float32Array] = []
    samples = 0
    for chunk in chunks:
        pending.append(chunk)
        samples += len(chunk)
        while samples >= rate_hz:
            joined = np.concatenate(pending)
            yield joined[:rate_hz]
            pending = [joined[rate_hz:]]
            samples -= rate_hz
    if samples:
        yield np.pad(np.concatenate(pending), (0, rate_hz - samples))
