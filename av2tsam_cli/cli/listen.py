"""`av2tsam listen`: list what is heard in videos and audio files, and when."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.batch import Batch, check_outputs
from av2tsam_cli.cli.console import Console, escape, print_table, print_text
from av2tsam_cli.cli.inputs import SOUNDS, VIDEOS, InputOptions, find_inputs, needs_listing
from av2tsam_cli.cli.isolation import run_in_child, run_isolated
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.cli.progress import BatchProgress
from av2tsam_cli.errors import UsageError
from av2tsam_cli.files import atomic_file, check_output, place_file, write_errors
from av2tsam_cli.job import Input, check_input
from av2tsam_cli.network import is_stored, url_of
from av2tsam_cli.options import (
    AllowPartial,
    AllowUrl,
    Messages,
    ModelOptions,
    Option,
    Overwrite,
    Panel,
    VocabularyOptions,
    either,
)
from av2tsam_cli.outputs.events import to_audacity, to_csv, to_srt, to_vtt
from av2tsam_cli.segment_options import Timing
from av2tsam_cli.stores import output_path

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.values import AudioStream, MediaInfo
    from av2tsam_cli.words.hearing import Hearing
    from av2tsam_cli.words.listen import Listening

NANO_NOTE = (
    "using nano, a demo model that only knows sixteen synthesised sounds; for recordings, run "
    "'av2tsam models pull real', or only 'av2tsam models pull clap-laion' (1.86 GB; not tested by "
    "this project with the published weights)"
)
"""Printed if nano is used because no other model is installed."""

KEYS = {"duration_s": None, "model": None, "timing": None, "events": (), "damage": None}
"""The keys of the JSON for an input, with the values to use where they are unknown."""

app = new_app()


@dataclass(frozen=True)
class ListenOptions:
    """What to write, and where."""

    csv: Annotated[bool, Option("write a CSV table", panel=Panel.OUTPUT)] = False
    """Whether to write CSV."""
    srt: Annotated[bool, Option("write SubRip subtitles", panel=Panel.OUTPUT)] = False
    """Whether to write SubRip."""
    vtt: Annotated[bool, Option("write WebVTT subtitles", panel=Panel.OUTPUT)] = False
    """Whether to write WebVTT."""
    audacity: Annotated[bool, Option("write labels for Audacity", panel=Panel.OUTPUT)] = False
    """Whether to write labels for Audacity."""
    out: Annotated[
        Path | None,
        Option(
            "a file, or a folder for files named after the inputs",
            panel=Panel.OUTPUT,
            metavar="PATH",
            short="-o",
            default="stdout",
            parse=output_path,
        ),
    ] = None
    """A file or a folder; None for stdout."""
    overwrite: Overwrite = False
    """Whether existing files are replaced."""
    timing: Annotated[
        Timing,
        Option(
            "paper for whole seconds; fine to find when sources start and stop, which takes longer",
            panel=Panel.OUTPUT,
        ),
    ] = "paper"
    """`paper` for whole seconds, `fine` to find when sources start and stop."""
    allow_partial: AllowPartial = False
    """Whether to use the readable part of a truncated or damaged file, instead of failing."""
    allow_url: AllowUrl = False
    """Whether to open web URLs directly, and the files and URLs in playlists."""


@command(
    app,
    examples=[
        ("av2tsam listen video.mp4", "a table of what is heard, and when"),
        ("av2tsam listen talk.wav -o talk.srt", "subtitles"),
        ("av2tsam listen '*.mp4' --json", "one JSON object per file"),
        ("av2tsam listen park.mp3 --name dog", "only when a dog is heard"),
    ],
)
def listen(
    inputs: Annotated[
        list[str],
        Option(
            "videos or audio files, folders, or patterns in quotes, such as '*.wav'",
            metavar="FILE",
            positional=True,
        ),
    ] = [],  # noqa: B006 - it is not changed
    *,
    search: InputOptions,
    options: ListenOptions,
    vocabulary: VocabularyOptions,
    model: ModelOptions,
    messages: Messages,
) -> int:
    """List what is heard in videos or audio files, and when."""
    chosen = _choose_format(options, messages)
    if options.out is not None and url_of(options.out):
        raise UsageError(f"{options.out}: only `segment` uploads results; set `out` to a folder")
    kinds, allow_url = (VIDEOS, SOUNDS), options.allow_url
    find = partial(find_inputs, inputs, search, kinds=kinds, out=options.out, allow_url=allow_url)
    found = run_in_child(find) if any(map(needs_listing, inputs)) else find()
    files = None
    if options.out is not None and chosen is not None:
        files = Files(options.out, chosen, options.overwrite)
        files.check(found)
    elif chosen is not None and chosen.option != "json" and len(found) > 1:
        raise UsageError(f"`{chosen.option}` is one file per input; set `out` to a folder for them")
    job = ListenJob({each.path: each for each in found}, chosen, files, options, vocabulary, model)
    console = Console(messages)
    batch = Batch(list(job.inputs), console, json=messages.json and files is None, keys=KEYS)
    with console.logged():
        return run_isolated(batch, _ListenRun(job, console, batch).run, outs=job.folders)


def _as_json(listening: "Listening") -> str:
    return json.dumps(asdict(listening), default=str, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Format:
    """A file format for events."""

    option: str
    """The option that chooses it."""
    suffix: str
    """Suffix of its files."""
    text: "Callable[[Listening], str]"
    """Returns the content of a file."""


FORMATS = (
    Format("json", ".json", _as_json),
    Format("csv", ".csv", lambda listening: to_csv(listening.events)),
    Format("srt", ".srt", lambda listening: to_srt(listening.events)),
    Format("vtt", ".vtt", lambda listening: to_vtt(listening.events)),
    Format("audacity", ".txt", lambda listening: to_audacity(listening.events)),
)


def _choose_format(options: ListenOptions, messages: Messages) -> Format | None:
    """Return the format to write; None for a table.

    Raises:
        UsageError: Two formats are given, or none although files are to be written.
    """
    flags = {**vars(options), "json": messages.json}
    given = [each for each in FORMATS if flags[each.option]]
    if len(given) > 1:
        names = " and ".join(f"`{each.option}`" for each in given[:2])
        raise UsageError(f"{names} exclude each other; pass one of them")
    if given or options.out is None:
        return given[0] if given else None
    for each in FORMATS:
        if options.out.suffix.lower() == each.suffix and not options.out.is_dir():
            return each
    known = either([f"`{each.option}`" for each in FORMATS])
    raise UsageError(f"{options.out}: no format is given; pass {known}")


@dataclass(frozen=True)
class Files:
    """The files that are written instead of stdout."""

    out: Path
    """A file, or a folder for files named after the inputs."""
    format: Format
    """Their format."""
    overwrite: bool
    """Whether existing files are replaced."""

    def path(self, source: Input) -> Path:
        """Return the file for an input."""
        return place_file(
            self.out, source.name, [each.suffix for each in FORMATS], self.format.suffix
        )

    def check(self, sources: Sequence[Input]) -> None:
        """Check that each input has its own file, with the right suffix.

        Raises:
            UsageError: The suffix is wrong, or two inputs have the same file.
        """
        suffix = self.path(sources[0]).suffix
        if suffix.lower() != self.format.suffix:
            raise UsageError(
                f"{self.out}: `{self.format.option}` writes {self.format.suffix} files, not "
                f"{suffix}; rename it"
            )
        outputs = [{"out": self.path(each)} for each in sources]
        check_outputs([each.path for each in sources], outputs, named={"out": self.out})

    def check_free(self, source: Input) -> None:
        """Check that the file for an input can be written.

        Raises:
            UsageError: It cannot be written, or exists and may not be replaced.
        """
        check_output(self.path(source), overwrite=self.overwrite)

    def write(self, listening: "Listening", source: Input) -> Path:
        """Write a result and return its file."""
        path = self.path(source)
        with write_errors(path), atomic_file(path, overwrite=self.overwrite) as part:
            part.write_text(
                self.format.text(listening), encoding="utf-8", errors="backslashreplace"
            )
        return path


@dataclass(frozen=True)
class ListenJob:
    """The inputs of one command, and what to do with them."""

    inputs: Mapping[Path, Input]
    """The files to listen to by path, without duplicates."""
    format: Format | None
    """What to write; None for a table."""
    files: Files | None
    """Where to write it; None for stdout."""
    options: ListenOptions
    """The timing, and whether to accept damaged files and URLs."""
    vocabulary: VocabularyOptions
    """The names to choose from."""
    model: ModelOptions
    """The model to use."""

    @property
    def folders(self) -> list[Path]:
        """The folders, or the file, that results are written to."""
        if self.files is None:
            return []
        return [self.files.out / folder for folder in {i.name.parent for i in self.inputs.values()}]


class _ListenRun:
    """Processes all inputs of a job with one model."""

    def __init__(self, job: ListenJob, console: Console, batch: Batch) -> None:
        self.job = job
        self.console = console
        self.batch = batch
        self.loaded: tuple[LoadedModel, Hearing] | None = None

    def run(self) -> int:
        """Check pending inputs, load the model, process the inputs, and return the exit code."""
        from av2tsam_cli.staging import Staging  # imports FFmpeg, so not before forking

        with closing(Staging()) as self.staging:
            pending = self.batch.pending
            count = 1 if any(map(is_stored, pending)) else max(1, len(pending))
            for first in range(0, len(pending), count):
                if not self._process(pending[first : first + count]):
                    break
        return self.batch.exit_code

    def _process(self, sources: Sequence[Path]) -> bool:
        """Process inputs; return False if they all failed because the model cannot be loaded."""
        attempt = self.batch.attempt
        checked = [c for each in sources if (c := attempt(each, partial(self._check, each)))]
        if checked and self.loaded is None:
            self.loaded = self.batch.attempt_all(self._load)
            if self.loaded is None:
                return False
        progress = self.batch.progress({info.path: info.duration_s for info, _ in checked})
        for info, stream in checked:
            attempt(info.path, partial(self._listen, info, stream, progress))
            self.staging.drop(info.path)
        return True

    def _check(self, source: Path) -> "tuple[MediaInfo, AudioStream]":
        from av2tsam_cli.words.listen import probe_audio

        check_input(self.job.inputs[source])
        if self.job.files is not None:
            self.job.files.check_free(self.job.inputs[source])
        copy = self.staging.fetch(source)
        try:
            return probe_audio(copy)
        except BaseException:
            self.staging.drop(copy)
            raise

    def _load(self) -> "tuple[LoadedModel, Hearing]":
        from av2tsam_cli.inference.loading import load_model
        from av2tsam_cli.words.hearing import load_hearing

        choice, names = self.job.model, self.job.vocabulary
        model = load_model(
            choice.model, use="sounds", device=choice.device, precision=choice.precision
        )
        if choice.model is None and model.name == "nano":
            self.console.note(NANO_NOTE)
        return model, load_hearing(model, names.vocabulary, names.name)

    def _listen(
        self,
        info: "MediaInfo",
        stream: "AudioStream",
        batch: BatchProgress,
    ) -> None:
        from av2tsam_cli.words.listen import listen_to

        model, hearing = self.loaded or self._load()
        total = round(info.duration_s) if info.duration_s else None
        with self.console.progress(info.path, total, "seconds", batch) as progress:
            listening = listen_to(
                info,
                stream,
                model=model,
                hearing=hearing,
                timing=self.job.options.timing,
                allow_partial=self.job.options.allow_partial,
                progress=progress,
            )
        if not listening.events:
            self.console.note(f"{info.path}: nothing of the vocabulary is heard")
        self._write(listening)
        self.batch.finish(info.path, asdict(listening))

    def _write(self, listening: "Listening") -> None:
        """Write a result to its file or to stdout; JSON on stdout is printed by the batch."""
        chosen = self.job.format
        if self.job.files is not None:
            path = self.job.files.write(listening, self.job.inputs[listening.input])
            count = len(listening.events)
            self.console.note(f"{path}: {count} sound{'s' * (count != 1)}")
        elif chosen is None:
            if len(self.job.inputs) > 1:
                print_text(f"{escape(str(listening.input))}\n")
            print_table(("from", "to", "name", "score"), _rows(listening))
        elif chosen.option != "json":
            print_text(chosen.text(listening))


def _rows(listening: "Listening") -> list[tuple[str, str, str, str]]:
    return [
        (_clock(each.start_s), _clock(each.end_s), each.name, f"{each.score:.2f}")
        for each in listening.events
    ]


def _clock(time_s: float) -> str:
    """Return a time as M:SS.S or H:MM:SS.S, which `--start` accepts too."""
    minutes, seconds = divmod(round(time_s, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"
