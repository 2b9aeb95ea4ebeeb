"""List what is heard in a video or an audio file, and when."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from av2tsam_cli.errors import MediaError
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.media.audio import choose_audio, read_windows
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.probe import check_unchanged, clock_zero, probe
from av2tsam_cli.network import input_path
from av2tsam_cli.segment_options import Timing
from av2tsam_cli.staging import staged
from av2tsam_cli.values import AudioStream, Damage, HeardSource, MediaInfo, SoundEvent
from av2tsam_cli.words.hearing import Hearing, load_hearing

SHORTEST_S = 0.1
"""A shorter rest of the last second, such as the padding of AAC, is left out."""
Progress = Callable[[int], None]
"""Called with the number of seconds done."""


@dataclass(frozen=True)
class Listening:
    """What is heard in a file."""

    input: Path
    """The file."""
    duration_s: float
    """Duration of the audio in seconds."""
    model: str
    """Name of the model."""
    timing: Timing
    """Whether times are whole seconds (`paper`) or not (`fine`)."""
    events: tuple[SoundEvent, ...]
    """The sounds that are heard, in order of their start; they can overlap."""
    damage: Damage | None = None
    """The parts of the file that could not be read; None if no damage is known."""


def listen(
    source: str | Path,
    *,
    model: str | Path | LoadedModel | None = None,
    vocabulary: Path | None = None,
    name: Sequence[str] = (),
    timing: Timing = "paper",
    device: str = "auto",
    precision: str = "auto",
    allow_partial: bool = False,
    allow_url: bool = False,
    progress: Progress | None = None,
) -> Listening:
    """List what is heard in a video or an audio file, and when.

    Args:
        source: The file, or its URL.
        model: A name, the path of a checkpoint, or a model from `load_model` with `use="sounds"`;
            None for the best one installed.
        vocabulary: A vocabulary file; None for the built-in vocabulary.
        name: Only listen for the sources with these names or synonyms; empty for all.
        timing: `paper` for whole seconds, `fine` to find when sources start and stop, which takes
            several times as long.
        device: `auto`, `cpu`, `cuda` or `mps`; ignored if `model` is already loaded.
        precision: `auto`, `fp32`, `bf16` or `fp16`; ignored if `model` is already loaded.
        allow_partial: Whether to use the readable part of a truncated or damaged file, instead of
            raising an error.
        allow_url: Whether `source` may open other files; see `segment_video`.
        progress: Called with the number of seconds done.

    Raises:
        UsageError: A name is unknown.
        MediaError: The file has no audio or cannot be read, or the vocabulary is not valid.
        WeightsError: The model cannot be loaded, or cannot name sounds.
    """
    with staged(input_path(source, allow_url=allow_url)) as path:
        info, stream = probe_audio(path)
        if not isinstance(model, LoadedModel):
            model = load_model(model, use="sounds", device=device, precision=precision)
        hearing = load_hearing(model, vocabulary, name)
        return listen_to(
            info,
            stream,
            model=model,
            hearing=hearing,
            timing=timing,
            allow_partial=allow_partial,
            progress=progress,
        )


def listen_to(
    info: MediaInfo,
    stream: AudioStream,
    *,
    model: LoadedModel,
    hearing: Hearing,
    timing: Timing = "paper",
    allow_partial: bool = False,
    progress: Progress | None = None,
) -> Listening:
    """List what is heard in an audio stream, from `probe_audio`; see `listen`.

    Raises:
        MediaError: The file cannot be read, or has changed since it was probed.
    """
    damage = DamageLog(info.path, allow_partial=allow_partial)
    known_s = None if info.may_jump else info.duration_s
    windows = read_windows(
        info,
        rate_hz=model.network.clap.config.rate_hz,
        stream=stream,
        zero_s=clock_zero(info, info.video[0] if info.video else None, stream),
        stop_s=None if known_s is None else max(known_s - SHORTEST_S, SHORTEST_S),
        damage=damage,
    )
    heard = []
    with torch_threads(model.cpu_threads):
        for window in hearing.hear(windows, timing):
            heard.append(Heard(window.start_s, window.end_s, window.sources or ()))
            if progress is not None:
                progress(round(window.end_s))
    check_unchanged(info)
    if not heard:
        raise MediaError(f"{info.path}: its audio cannot be decoded; copy it again")
    damage.report()
    end_s = heard[-1].end_s
    duration_s = min(end_s, known_s or end_s)
    events = to_events(heard, duration_s)
    return Listening(info.path, duration_s, model.name, timing, events, damage.found)


def probe_audio(source: Path) -> tuple[MediaInfo, AudioStream]:
    """Return the streams of a file, and the audio stream to listen to.

    Raises:
        MediaError: The file cannot be read, or has no audio.
    """
    info = probe(source, need_video=False)
    stream = choose_audio(info, None)
    if stream is None:
        raise MediaError(f"{source}: has no audio; use a file with an audio stream")
    return info, stream


class Heard(NamedTuple):
    """The sources that are heard in a time span, in seconds."""

    start_s: float
    end_s: float
    sources: Sequence[HeardSource]


def to_events(heard: Iterable[Heard], end_s: float) -> tuple[SoundEvent, ...]:
    """Join adjacent time spans in which a source is heard; return events in order of their start.

    Args:
        heard: The sources in consecutive time spans.
        end_s: End of the audio in seconds.
    """
    spans: dict[str, list[list[_Part]]] = {}
    for start_s, stop_s, sources in heard:
        for source in sources:
            found = spans.setdefault(source.name, [])
            if not found or found[-1][-1].end_s < start_s:
                found.append([])
            found[-1].append(_Part(start_s, min(stop_s, end_s), source.probability))
    events = [_event(name, parts) for name, found in spans.items() for parts in found]
    return tuple(sorted(events, key=lambda event: (event.start_s, -event.score)))


class _Part(NamedTuple):
    """A part of an event."""

    start_s: float
    end_s: float
    probability: float


def _event(name: str, parts: Sequence[_Part]) -> SoundEvent:
    """Join adjacent parts; the score is their mean probability over time."""
    lengths = [part.end_s - part.start_s for part in parts]
    weighted = sum(n * part.probability for n, part in zip(lengths, parts, strict=True))
    score = weighted / sum(lengths) if sum(lengths) > 0 else parts[0].probability
    return SoundEvent(name, parts[0].start_s, parts[-1].end_s, score)
