"""`av2tsam segment`: highlight the sound source in videos, or write masks of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.batch import Batch, check_input, check_outputs
from av2tsam_cli.cli.console import Console
from av2tsam_cli.cli.isolation import run_isolated
from av2tsam_cli.cli.options import command, expand, new_app
from av2tsam_cli.cli.progress import BatchProgress
from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import Messages, ModelOptions, Option, Panel
from av2tsam_cli.segment_options import SegmentOptions

if TYPE_CHECKING:
    from av2tsam_cli.inference.segmenter import Segmenter
    from av2tsam_cli.pipeline import SegmentResult
    from av2tsam_cli.plan import SegmentPlan

NANO_NOTE = (
    "using nano, a demo model that only recognises drawn scenes; for real videos, run "
    "'av2tsam models pull real' (5.6 GB; not tested by this project with the published weights)"
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
        ("av2tsam segment dog.mp4 -o out.mp4 --names", "name what is heard"),
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
            "an .mp4, .mov, .mkv or .webm, or a folder with --format",
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
            "compile the network, which pays off for long videos",
            panel=Panel.ADVANCED,
        ),
    ] = False,
    messages: Messages,
) -> int:
    """Highlight the sound source in videos, or write masks of it."""
    if options.overwrite and skip_existing:
        raise UsageError("`overwrite` and `skip_existing` exclude each other; pass one of them")
    sources = expand(inputs, allow_url=options.allow_url)
    job = SegmentJob(sources, out, options, model, compile, skip_existing)
    console = Console(messages)
    batch = Batch(job.inputs, console, json=messages.json)
    with console.logged():
        return run_isolated(batch, _JobRunner(job, console, batch).run, outs=job.outs)


def _side(options: SegmentOptions, option: str, source: Path) -> Path:
    return options.sides(source)[option]


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

    @property
    def outs(self) -> list[Path]:
        """The files and folders that the options name for outputs."""
        return [self.out, *(getattr(self.options, option) for option in self.sides)]

    @property
    def sides(self) -> list[str]:
        """The options that ask for files beside the main output."""
        return list(self.options.sides(self.inputs[0]))

    def output(self, source: Path) -> Path:
        """Return the file or folder that is written for an input."""
        from av2tsam_cli.outputs.writers import output_path
        from av2tsam_cli.plan import place_output

        kind, target = place_output(source, self.out, self.options.format)
        return output_path(target, kind, source)

    def outputs(self, source: Path) -> list[Path]:
        """Return everything that is written for an input."""
        return [self.output(source), *self.options.sides(source).values()]


class _JobRunner:
    """Runs a job: all inputs with one model."""

    def __init__(self, job: SegmentJob, console: Console, batch: Batch) -> None:
        self.job = job
        self.console = console
        self.batch = batch

    def run(self) -> int:
        """Check pending inputs, load the model, process the inputs, and return the exit code."""
        check_outputs(
            self.job.inputs,
            self.job.output,
            out=self.job.out,
            hint="set `out` to a folder, and `format` to video, cutout, masks or another one",
        )
        for option in self.job.sides:
            check_outputs(
                self.job.inputs,
                partial(_side, self.job.options, option),
                out=getattr(self.job.options, option),
                hint=f"set `{option}` to a folder",
                option=option,
            )
        attempt, pending = self.batch.attempt, self.batch.pending
        plans = [plan for each in pending if (plan := attempt(each, partial(self._plan, each)))]
        if plans and (segmenter := self.batch.attempt_all(partial(self._load, plans))):
            progress = self.batch.progress({plan.info.path: plan.frames for plan in plans})
            for plan in plans:
                attempt(plan.info.path, partial(self._segment, plan, segmenter, progress))
        return self.batch.exit_code

    def _plan(self, source: Path) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped."""
        from av2tsam_cli.plan import plan_video

        outputs = self.job.outputs(source)
        if self.job.skip_existing and all(output.exists() for output in outputs):
            self.console.note(f"{source}: skipped, {outputs[0]} already exists")
            self.batch.finish(source, {"outputs": outputs, "skipped": True})
            return None
        check_input(source)
        return plan_video(source, self.job.out, self.job.options)

    def _load(self, plans: "Sequence[SegmentPlan]") -> "Segmenter":
        """Load the model for all inputs."""
        from av2tsam_cli.pipeline import load_for

        options, choice = self.job.options, self.job.model
        segmenter = load_for(
            options,
            choice.model,
            device=choice.device,
            precision=choice.precision,
            compile_frames=sum(plan.frames or 0 for plan in plans) if self.job.compile else 0,
        )
        if choice.model is None and segmenter.model.name == "nano":
            self.console.note(NANO_NOTE)
        return segmenter

    def _segment(self, plan: "SegmentPlan", segmenter: "Segmenter", batch: BatchProgress) -> None:
        from av2tsam_cli.pipeline import segment_planned

        source = plan.info.path
        if plan.audio is None and plan.options.text is None:
            self.console.note(f"{source}: no audio, so all masks are empty")
        with self.console.progress(source, plan.frames, batch=batch) as progress:
            result = segment_planned(plan, segmenter, progress=progress)
        self.console.note(_summary(result))
        self.batch.finish(source, asdict(result))


def _summary(result: "SegmentResult") -> str:
    speed = result.frames / result.wall_s
    what = "a sound source" if result.text is None else repr(result.text)
    return (
        f"{result.outputs[0]}: {result.frames} frames in {result.wall_s:.1f} s "
        f"({speed:.0f} frames/s), {result.frames_with_mask} with {what}"
    )
