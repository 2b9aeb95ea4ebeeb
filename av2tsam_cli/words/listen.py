"""What is heard in a video or an audio file, and when."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from av2tsam_cli.errors import MediaError
from av2tsam_cli.inference.device import torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.media.audio import choose_audio, read_windows
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.values import AudioStream, HeardSource, MediaInfo, SoundEvent
from av2tsam_cli.words.hearing import Hearing, load_hearing

SHORTEST_S = 0.1
"""A last second of which there is less, such as the padding of AAC, is left out."""
Progress = Callable[[int], None]
"""Called with the number of seconds that are done."""


@dataclass(frozen=True)
class Listening:
    """What is heard in a file."""

    input: Path
    """The file."""
    duration_s: float
    """Duration of the audio in seconds."""
    model: str
    """Name of the model."""
    events: tuple[SoundEvent, ...]
    """What is heard, in order of the start times; several can be heard at once."""


def listen(
    source: str | Path,
    *,
    model: str | Path | LoadedModel | None = None,
    vocabulary: Path | None = None,
    name: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    progress: Progress | None = None,
) -> Listening:
    """List what is heard in a video or an audio file, and when, to the second.

    Args:
        source: The file.
        model: A name, the path of a checkpoint, or a model from `load_model` with `use="sounds"`;
            None for the best one installed.
        vocabulary: A vocabulary file; None for the built-in vocabulary.
        name: Only listen for the sources with these names or synonyms; empty for all.
        device: `auto`, `cpu`, `cuda` or `mps`; ignored if `model` is loaded already.
        precision: `auto`, `fp32`, `bf16` or `fp16`; ignored if `model` is loaded already.
        progress: Called with the number of seconds done.

    Raises:
        UsageError: A name is unknown.
        MediaError: The file has no audio or cannot be read, or the vocabulary is not valid.
        WeightsError: The model cannot be loaded, or cannot name sounds.
    """
    info, stream = probe_audio(Path(source))
    if not isinstance(model, LoadedModel):
        model = load_model(model, use="sounds", device=device, precision=precision)
    hearing = load_hearing(model, vocabulary, name)
    return listen_to(info, stream, model=model, hearing=hearing, progress=progress)


def listen_to(
    info: MediaInfo,
    stream: AudioStream,
    *,
    model: LoadedModel,
    hearing: Hearing,
    progress: Progress | None = None,
) -> Listening:
    """List what is heard in an audio stream, from `probe_audio`; see `listen`.

    Raises:
        MediaError: It cannot be read.
    """
    known_s = None if info.may_jump else info.duration_s
    windows = read_windows(
        info,
        rate_hz=model.network.clap.config.rate_hz,
        stream=stream,
        zero_s=clock_zero(info, info.video[0] if info.video else None, stream),
        stop_s=None if known_s is None else max(known_s - SHORTEST_S, SHORTEST_S),
    )
    heard = {}
    with torch_threads(model.cpu_threads):
        for window in hearing.hear(windows):
            heard[window.index] = window.sources or ()
            if progress is not None:
                progress(window.index + 1)
    if not heard:
        raise MediaError(f"{info.path}: its audio cannot be decoded; copy it again")
    end_s = float(max(heard) + 1)
    duration_s = min(end_s, known_s or end_s)
    return Listening(info.path, duration_s, model.name, to_events(heard, duration_s))


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


def to_events(heard: Mapping[int, Sequence[HeardSource]], end_s: float) -> tuple[SoundEvent, ...]:
    """Join the seconds in which a source is heard without a break, in order of their start.

    Args:
        heard: What is heard in each second [k, k + 1), in order.
        end_s: End of the audio in seconds, which is also that of the last second.
    """
    spans: dict[str, list[_Span]] = {}
    for second, sources in heard.items():
        for source in sources:
            found = spans.setdefault(source.name, [])
            if not found or found[-1].stop != second:
                found.append(_Span(source.name, second))
            found[-1].chances.append(source.probability)
    events = [span.event(end_s) for found in spans.values() for span in found]
    return tuple(sorted(events, key=lambda event: (event.start_s, -event.score)))


@dataclass
class _Span:
    """Consecutive seconds in which a source is heard."""

    name: str
    start: int
    chances: list[float] = field(default_factory=list)

    @property
    def stop(self) -> int:
        """The second after the last."""
        return self.start + len(self.chances)

    def event(self, end_s: float) -> SoundEvent:
        score = sum(self.chances) / len(self.chances)
        return SoundEvent(self.name, float(self.start), min(float(self.stop), end_s), score)
