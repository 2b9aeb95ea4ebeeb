"""`av2tsam segment`: highlight the sound source in videos, or write masks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.console import Console, explain, print_json
from av2tsam_cli.cli.options import command, expand, new_app
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError
from av2tsam_cli.options import Messages, ModelOptions, Option, Panel
from av2tsam_cli.segment_options import SegmentOptions

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.pipeline import SegmentPlan, SegmentResult

NANO_NOTE = (
    "using nano, a demo model that only recognises drawn scenes; for real videos, 'av2tsam models "
    "pull evf-sam2-text' gets a model for --text (not tested by this project)"
)
"""Printed if nano is used because no other model is installed. The weights of the networks that
follow sound may be unpublished."""

app = new_app()


@command(
    app,
    examples=[
        ("av2tsam segment dog.mp4 -o out.mp4", "highlight the sound source"),
        ("av2tsam segment dog.mp4 -o masks -f masks", "write a mask PNG per frame"),
        ('av2tsam segment dog.mp4 -o out.mp4 --text "dog"', "segment what a phrase names"),
    ],
)
def segment(
    inputs: Annotated[
        list[str],
        Option("videos, or patterns in quotes, such as '*.mp4'", metavar="INPUT", positional=True),
    ],
    *,
    out: Annotated[
        Path,
        Option(
            "a video (.mp4, .mov, .mkv, .webm), or a folder with --format",
            panel=Panel.OUTPUT,
            metavar="PATH",
            short="-o",
        ),
    ],
    options: SegmentOptions,
    skip_existing: Annotated[
        bool, Option("skip inputs whose output already exists", panel=Panel.OUTPUT)
    ] = False,
    model: ModelOptions,
    compile: Annotated[  # noqa: A002 - the option's name
        bool,
        Option(
            "compile the network first: takes a minute, and pays off for long videos only",
            panel=Panel.ADVANCED,
        ),
    ] = False,
    messages: Messages,
) -> int:
    """Highlight the sound source in videos, or write masks of it."""
    if options.overwrite and skip_existing:
        raise UsageError("`overwrite` and `skip_existing` exclude each other; pass one of them")
    job = SegmentJob(expand(inputs), out, options, model, compile, skip_existing)
    _check_collisions(job)
    console = Console(quiet=messages.quiet, debug=messages.debug)
    with console.logged():
        return _JobRunner(job, console, json=messages.json).run()


@dataclass(frozen=True)
class SegmentJob:
    """The inputs of one command and what to do with them."""

    inputs: tuple[Path, ...]
    """The videos, without duplicates."""
    out: Path
    """A video file, or a folder."""
    options: SegmentOptions
    """What to segment in each video, and how."""
    model: ModelOptions
    """Which model to use."""
    compile: bool
    """Whether to compile the network if that saves time."""
    skip_existing: bool
    """Whether to skip inputs whose output already exists."""

    def output(self, source: Path) -> Path:
        """Return the file or folder that is written for an input."""
        from av2tsam_cli.outputs.writers import output_path
        from av2tsam_cli.pipeline import place_output

        kind, target = place_output(source, self.out, self.options.format)
        return output_path(target, kind, source)


def _check_collisions(job: SegmentJob) -> None:
    """Check that no two inputs have the same output.

    Raises:
        UsageError: Two of them do.
    """
    owners: dict[str, Path] = {}
    for source in job.inputs:
        output = job.output(source)
        # Some file systems do not distinguish case.
        other = owners.setdefault(str(output).casefold(), source)
        if other != source and output == job.out:
            raise UsageError(
                f"{output}: cannot hold the output of {len(job.inputs)} inputs; set `out` to a "
                "folder and `format` to video, masks or overlays"
            )
        if other != source:
            raise UsageError(
                f"{other} and {source}: both would be written to {output}; run them one by one, "
                "each with its own `out`"
            )


class _JobRunner:
    """Runs a job: all inputs with one model. An input that fails does not stop the others."""

    def __init__(self, job: SegmentJob, console: Console, *, json: bool) -> None:
        self.job = job
        self.console = console
        self.json = json
        self.pending = list(job.inputs)
        self.failures: set[int] = set()

    def run(self) -> int:
        """Check every input, load the model, process the inputs, and return the exit code."""
        try:
            plans = [plan for source in self.job.inputs if (plan := self._plan(source))]
            if plans and (model := self._load(plans)):
                for plan in plans:
                    self._segment(plan, model)
        except KeyboardInterrupt:
            for source in list(self.pending):
                self._report_failure(source, Interrupted("interrupted"))
            raise
        return self._exit_code()

    def _exit_code(self) -> int:
        """Return 0 if nothing failed, the code that all failures share, or 1 if they differ."""
        if not self.failures:
            return 0
        if len(self.failures) == 1:
            (code,) = self.failures
            return code
        return Av2tsamError.exit_code

    def _plan(self, source: Path) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped or cannot be processed."""
        from av2tsam_cli.pipeline import plan_video

        output = self.job.output(source)
        if self.job.skip_existing and output.exists():
            self.console.note(f"{source}: skipped, {output} already exists")
            self._report(source, {"outputs": [output], "skipped": True})
            return None
        try:
            _check_input(source)
            return plan_video(source, self.job.out, self.job.options)
        except Exception as error:  # noqa: BLE001 - the other inputs are still processed
            self._fail(source, error)
            return None

    def _load(self, plans: "Sequence[SegmentPlan]") -> "LoadedModel | None":
        """Load the model; if that fails, so does every input."""
        from av2tsam_cli.pipeline import load_for

        options, choice = self.job.options, self.job.model
        try:
            model = load_for(
                options,
                choice.model,
                device=choice.device,
                precision=choice.precision,
                compile_frames=sum(plan.frames or 0 for plan in plans) if self.job.compile else 0,
            )
        except Exception as error:  # noqa: BLE001 - reported once, and in the record of each input
            self.console.error(error)
            for plan in plans:
                self._report_failure(plan.info.path, error)
            return None
        if choice.model is None and model.name == "nano":
            self.console.note(NANO_NOTE)
        return model

    def _segment(self, plan: "SegmentPlan", model: "LoadedModel") -> None:
        from av2tsam_cli.pipeline import segment_planned

        source = plan.info.path
        if plan.audio is None and plan.options.text is None:
            self.console.note(f"{source}: no audio, so all masks are empty")
        try:
            with self.console.progress(source.name, plan.frames) as progress:
                result = segment_planned(plan, model, progress=progress)
        except Exception as error:  # noqa: BLE001 - the other inputs are still processed
            self._fail(source, error)
            return
        self.console.note(_summary(result))
        self._report(source, asdict(result))

    def _fail(self, source: Path, error: Exception) -> None:
        self.console.error(error)
        self._report_failure(source, error)

    def _report_failure(self, source: Path, error: Exception) -> None:
        code = error.exit_code if isinstance(error, Av2tsamError) else Av2tsamError.exit_code
        self.failures.add(code)
        self._report(source, {"error": explain(error), "exit_code": code})

    def _report(self, source: Path, record: Mapping[str, object]) -> None:
        """Finish an input, and print its record if `--json` is given."""
        self.pending.remove(source)
        if self.json:
            print_json({"input": source, **record})


def _check_input(source: Path) -> None:
    """Check that an input is a file.

    Raises:
        UsageError: It is not.
    """
    if source.is_dir():
        raise UsageError(f"{source}: is a folder; pass the videos in it, such as '{source}/*.mp4'")
    if not source.exists():
        matches = "no file matches; check the pattern" if "*" in str(source) else ""
        raise UsageError(f"{source}: {matches or 'file not found; check the path'}")


def _summary(result: "SegmentResult") -> str:
    speed = result.frames / result.wall_s
    what = "a sound source" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )
