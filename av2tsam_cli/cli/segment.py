"""`av2tsam segment`: videos in; what sounds, or a phrase names, highlighted or as masks out."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from av2tsam_cli.cli.console import Console, explain, print_json
from av2tsam_cli.cli.options import (
    EXPERT,
    BatchSize,
    Debug,
    Device,
    Json,
    Model,
    Overwrite,
    Precision,
    Quiet,
    decibels,
    expand,
    levels,
    new_app,
    probability,
    rate,
    seconds,
)
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.pipeline import SegmentOptions, SegmentPlan, SegmentResult

OUTPUT = "Output"
PART = "Part of the video"
NANO_NOTE = (
    "using nano, the small built-in model: it knows the drawn objects of its synthetic training "
    "scenes, and is for trying things out; see: av2tsam models info nano"
)

app = new_app()


@app.command()
def segment(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Videos, or quoted patterns.")
    ],
    *,
    out: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="A video (.mp4, .mov, .mkv, .webm), or a folder.",
            rich_help_panel=OUTPUT,
        ),
    ],
    text: Annotated[
        str | None,
        typer.Option(
            metavar="PHRASE",
            help="Look for this instead of listening, such as 'the dog'; the video needs no sound. "
            "nano knows a few words: a wrong one lists them.",
            show_default="what is making the sound",
        ),
    ] = None,
    kind: Annotated[
        Literal["video", "masks", "overlays"] | None,
        typer.Option(
            "--format",
            help="What to write into the folder --out: NAME.mp4, or NAME/000000.png ... with a "
            "0/255 mask or a highlighted picture per frame.",
            show_default="video where --out names one",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Leave inputs out whose output exists.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    start: Annotated[
        float,
        typer.Option(
            parser=seconds,
            metavar="TIME",
            help="Begin here: seconds, or [HH:]MM:SS.",
            rich_help_panel=PART,
        ),
    ] = 0.0,
    end: Annotated[
        float | None,
        typer.Option(
            parser=seconds,
            metavar="TIME",
            help="End here: seconds, or [HH:]MM:SS.",
            show_default="the end of the video",
            rich_help_panel=PART,
        ),
    ] = None,
    audio_stream: Annotated[
        str | None,
        typer.Option(
            metavar="N|LANG",
            help="Which sound: 0 is the first audio stream; or a language, such as eng. It is also "
            "the sound of an overlay video.",
            show_default="the one that players take",
            rich_help_panel=PART,
        ),
    ] = None,
    require_audio: Annotated[
        bool,
        typer.Option(
            "--require-audio",
            help="Fail with exit code 3 where there is no audio stream; otherwise all masks are "
            "empty then. Not with --text.",
            rich_help_panel=PART,
        ),
    ] = False,
    model: Model = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    fps: Annotated[
        Fraction | None,
        typer.Option(
            parser=rate,
            metavar="RATE",
            help="Masks per second that the network makes. In between, they follow what moves, by "
            "optical flow.",
            show_default="every frame",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            parser=probability,
            metavar="P",
            help="Probability from which a pixel belongs to the mask, between 0 and 1.",
            rich_help_panel=EXPERT,
        ),
    ] = 0.5,
    silence_dbfs: Annotated[
        float,
        typer.Option(
            parser=decibels,
            metavar="LEVEL",
            help="Seconds of sound below this RMS level, in dB relative to full scale, get an "
            "empty mask; off: none do. Not with --text.",
            rich_help_panel=EXPERT,
        ),
    ] = -60.0,
    reuse: Annotated[
        float | None,
        typer.Option(
            parser=levels,
            metavar="LEVELS",
            help="Frames that differ by no more than this from the last that the network saw in "
            "that second get its mask: levels of 0 to 255, on average over every block of the "
            "picture (of 32 x 32); off: every frame is looked at.",
            rich_help_panel=EXPERT,
        ),
    ] = 1.0,
    precision: Precision = "auto",
    batch_size: BatchSize = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the network first, which takes a minute and is left out where the inputs "
            "are too short for it to pay. Needs a C++ compiler on a CPU.",
            rich_help_panel=EXPERT,
        ),
    ] = False,
) -> int:
    """Find what is making the sound in each video, and highlight it or write masks of it.

    With --text, find what a phrase names: to see what the model knows, or where it hears wrong.

    Inputs of one name from several folders would overwrite each other: that is refused before the
    work. Nothing is replaced unasked, and nothing half-written is left behind. Where several
    inputs fail for different reasons the exit code is 1.
    """
    from av2tsam_cli.pipeline import SegmentOptions

    if overwrite and skip_existing:
        raise UsageError("--overwrite and --skip-existing do not go together; pass one of them")
    request = Request(
        inputs=expand(inputs),
        out=out,
        options=SegmentOptions(
            format=kind,
            text=text,
            start_s=start,
            stop_s=end,
            fps=fps,
            threshold=threshold,
            silence_dbfs=silence_dbfs,
            reuse=reuse,
            audio_stream=audio_stream,
            require_audio=require_audio,
            batch_size=batch_size,
            overwrite=overwrite,
        ),
        model=model,
        device=device,
        precision=precision,
        compiled=compiled,
        skip_existing=skip_existing,
    )
    _check_collisions(request)
    console = Console(quiet=quiet, debug=debug)
    with console.logged():
        return _Batch(request, console, json=json).run()


@dataclass(frozen=True)
class Request:
    """Everything that was asked for, checked as far as it can be without opening a file."""

    inputs: tuple[Path, ...]
    """The videos, each once."""
    out: Path
    """A video file, or a folder."""
    options: "SegmentOptions"
    """What to make of each."""
    model: str | None
    """Name or path; None for the best installed one."""
    device: str
    """`auto`, `cpu`, `cuda` or `mps`."""
    precision: str
    """`auto`, `fp32`, `bf16` or `fp16`."""
    compiled: bool
    """Whether the network is compiled where that pays."""
    skip_existing: bool
    """Whether inputs whose output exists are left out."""

    def place(self, source: Path) -> Path:
        """The file or folder that one input will become."""
        from av2tsam_cli.outputs.writers import output_path
        from av2tsam_cli.pipeline import place_output

        kind, target = place_output(source, self.out, self.options.format)
        return output_path(target, kind, source)


def _check_collisions(request: Request) -> None:
    """Find inputs that would overwrite each other's output.

    Raises:
        UsageError: There are such inputs.
    """
    owners: dict[str, Path] = {}
    for source in request.inputs:
        place = request.place(source)
        # Some file systems do not tell A from a: neither does this.
        other = owners.setdefault(str(place).casefold(), source)
        if other != source and place == request.out:
            raise UsageError(
                f"{place}: {len(request.inputs)} inputs do not fit into one video; name a folder "
                "with --out DIR --format video, masks or overlays"
            )
        if other != source:
            raise UsageError(
                f"{other} and {source} would both become {place}; give each a --out of its own"
            )


class _Batch:
    """The inputs of one call: one model, one report each, and one exit code for all."""

    def __init__(self, request: Request, console: Console, *, json: bool) -> None:
        self.request = request
        self.console = console
        self.json = json
        self.pending = list(request.inputs)
        self.codes: set[int] = set()

    def run(self) -> int:
        """Check every input, then load the model, then work; one that fails stops no other."""
        try:
            plans = [plan for source in self.request.inputs for plan in self._plans(source)]
            if plans and (model := self._load(plans)):
                for plan in plans:
                    self._segment(plan, model)
        except KeyboardInterrupt:
            for source in list(self.pending):
                self._failed(source, Interrupted("interrupted"))
            raise
        return self.codes.pop() if len(self.codes) == 1 else min(1, len(self.codes))

    def _plans(self, source: Path) -> "list[SegmentPlan]":
        """What is to be done with one input; nothing where it is skipped or cannot be done."""
        from av2tsam_cli.pipeline import plan_video

        place = self.request.place(source)
        if self.request.skip_existing and place.exists():
            self.console.note(f"{source}: skipped, {place} exists")
            self._done(source, {"outputs": [place], "skipped": True})
            return []
        plans: list[SegmentPlan] = []
        with self._reporting(source):
            plans.append(plan_video(source, self.request.out, self.request.options))
        return plans

    def _load(self, plans: "Sequence[SegmentPlan]") -> "LoadedModel | None":
        from av2tsam_cli.pipeline import load_for

        request = self.request
        frames = sum(plan.frames or 0 for plan in plans)
        try:
            model = load_for(
                request.options,
                request.model,
                device=request.device,
                precision=request.precision,
                compile_frames=frames if request.compiled else 0,
            )
        except Exception as error:  # noqa: BLE001 - every input is told about it
            self.console.error(error)
            for plan in plans:
                self._failed(plan.info.path, error)
            return None
        if request.model is None and model.name == "nano":
            self.console.note(NANO_NOTE)
        return model

    def _segment(self, plan: "SegmentPlan", model: "LoadedModel") -> None:
        from av2tsam_cli.pipeline import segment_planned

        source = plan.info.path
        if plan.audio is None and plan.options.text is None:
            self.console.note(f"{source}: has no sound, so all masks are empty")
        with self._reporting(source):
            with self.console.progress(source.name, plan.frames) as progress:
                result = segment_planned(plan, model, progress=progress)
            self.console.note(_summary(result))
            self._done(source, asdict(result))

    @contextmanager
    def _reporting(self, source: Path) -> Generator[None, None, None]:
        """Report what goes wrong with one input, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the other inputs still run
            self.console.error(error)
            self._failed(source, error)

    def _failed(self, source: Path, error: Exception) -> None:
        code = error.exit_code if isinstance(error, Av2tsamError) else Av2tsamError.exit_code
        self.codes.add(code)
        self._done(source, {"error": explain(error), "exit_code": code})

    def _done(self, source: Path, record: Mapping[str, object]) -> None:
        self.pending.remove(source)
        if self.json:
            print_json({"input": source, **record})


def _summary(result: "SegmentResult") -> str:
    speed = result.frames / result.wall_s
    what = "a sounding object" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )
