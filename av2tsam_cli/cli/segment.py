"""`av2tsam segment`: highlight the sound source in videos, or write masks of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.batch import Batch, check_outputs
from av2tsam_cli.cli.console import Console
from av2tsam_cli.cli.inputs import Input, InputOptions, check_input, find_inputs, name_outputs
from av2tsam_cli.cli.isolation import run_isolated
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.cli.progress import BatchProgress
from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import Messages, ModelOptions, Option, Panel
from av2tsam_cli.segment_options import SIDE_SUFFIXES, SegmentOptions

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

PROBED_AHEAD = 1000
"""Videos that are probed before the first of them is processed."""

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
        Option(
            "videos, folders, or patterns in quotes, such as '*.mp4'",
            metavar="INPUT",
            positional=True,
        ),
    ] = [],  # noqa: B006 - it is not changed
    *,
    search: InputOptions,
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
    name_template: Annotated[
        str | None,
        Option(
            "name outputs in --out, such as {folder}/{stem}_{number:03}.webm",
            panel=Panel.INPUTS,
            metavar="NAME",
            default="{folder}/{stem}",
        ),
    ] = None,
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
    found = find_inputs(inputs, search, out=out, allow_url=options.allow_url)
    if name_template is not None:
        found = name_outputs(found, name_template, out)
    job = SegmentJob(
        {each.path: each for each in found}, out, options, model, compile, skip_existing
    )
    console = Console(messages)
    batch = Batch(list(job.inputs), console, json=messages.json)
    with console.logged():
        return run_isolated(batch, _JobRunner(job, console, batch).run, outs=job.folders)


@dataclass(frozen=True)
class SegmentJob:
    """The inputs of one command and what to do with them."""

    inputs: Mapping[Path, Input]
    """The videos by their paths, without duplicates."""
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
    def outs(self) -> dict[str, Path]:
        """The files and folders that the options name for outputs, by these options."""
        sides = [name for name in SIDE_SUFFIXES if getattr(self.options, name) is not None]
        return {"out": self.out, **{name: getattr(self.options, name) for name in sides}}

    @property
    def folders(self) -> list[Path]:
        """The folders in which outputs are written, and the files that the options name."""
        folders = {each.name.parent for each in self.inputs.values()}
        return [out / folder for out in self.outs.values() for folder in folders]

    def outputs(self, source: Path) -> dict[str, Path]:
        """Return everything that is written for an input, by the options that ask for it."""
        from av2tsam_cli.plan import place_output

        name, suffix = self.inputs[source].name, self.inputs[source].suffix
        main = place_output(self.out, name, self.options.format, suffix)[1]
        return {"out": main, **self.options.sides(name)}


class _JobRunner:
    """Runs a job: all inputs with one model."""

    def __init__(self, job: SegmentJob, console: Console, batch: Batch) -> None:
        self.job = job
        self.console = console
        self.batch = batch

    def run(self) -> int:
        """Check pending inputs, load the model, process the inputs, and return the exit code.

        Videos are probed in blocks, so that the first of very many does not wait for all.
        """
        attempt, sources = self.batch.attempt, list(self.job.inputs)
        check_outputs(sources, list(map(self.job.outputs, sources)), named=self.job.outs)
        for each in self.batch.pending:
            attempt(each, partial(check_input, each))
        segmenter: Segmenter | None = None
        pending = self.batch.pending
        progress = self.batch.progress(dict.fromkeys(pending))
        for first in range(0, len(pending), PROBED_AHEAD):
            block = pending[first : first + PROBED_AHEAD]
            plans = [plan for each in block if (plan := attempt(each, partial(self._plan, each)))]
            if not plans:
                continue
            segmenter = segmenter or self.batch.attempt_all(partial(self._load, plans))
            if segmenter is None:
                break
            progress.expect(block, {plan.info.path: plan.frames for plan in plans})
            for plan in plans:
                attempt(plan.info.path, partial(self._segment, plan, segmenter, progress))
        return self.batch.exit_code

    def _plan(self, source: Path) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped."""
        from av2tsam_cli.plan import plan_video

        outputs = list(self.job.outputs(source).values())
        if self.job.skip_existing and all(output.exists() for output in outputs):
            self.console.note(f"{source}: skipped, {outputs[0]} already exists")
            self.batch.finish(source, {"outputs": outputs, "skipped": True})
            return None
        name, suffix = self.job.inputs[source].name, self.job.inputs[source].suffix
        return plan_video(source, self.job.out, self.job.options, name=name, suffix=suffix)

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
