"""`av2tsam segment`: highlight the sound source in videos, or write masks of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.batch import Batch, check_outputs
from av2tsam_cli.cli.console import Console, escape, print_text
from av2tsam_cli.cli.devices import assign_devices
from av2tsam_cli.cli.inputs import Input, InputOptions, check_input, find_inputs, name_outputs
from av2tsam_cli.cli.isolation import run_isolated
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.cli.progress import BatchProgress
from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import Messages, ModelOptions, Option, Panel
from av2tsam_cli.segment_options import SIDE_SUFFIXES, Format, SegmentOptions

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import ModelIdentity
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

KEYS: dict[str, object] = dict.fromkeys(
    (
        "outputs",
        "format",
        "start",
        "rate",
        "size",
        "has_audio",
        "silent_s",
        "duration_s",
        "frames",
        "frames_computed",
        "frames_with_mask",
        "mean_area",
        "sources",
        "text",
        "hear",
        "model",
        "device",
        "precision",
        "fps",
        "timing",
        "smooth",
        "refine",
        "pix_fmt",
        "wall_s",
        "damage",
    )
)
KEYS |= {"outputs": (), "sources": ()}
"""The keys of the JSON for an input, with their values where these are unknown."""

app = new_app()


@dataclass(frozen=True)
class BatchOptions:
    """How the inputs of one command are processed."""

    name_template: Annotated[
        str | None,
        Option(
            "name outputs in --out, such as {folder}/{stem}_{number:03}.webm",
            panel=Panel.INPUTS,
            metavar="NAME",
            default="{folder}/{stem}",
        ),
    ] = None
    """How outputs are named, see `inputs.name_outputs`; None for the names of the inputs."""
    dry_run: Annotated[
        bool, Option("only print what would be done", panel=Panel.INPUTS, short="-n")
    ] = False
    """Whether to print the plan, and neither load a model nor write anything."""
    skip_existing: Annotated[
        bool, Option("skip inputs that are done with these options", panel=Panel.OUTPUT)
    ] = False
    """Whether to skip inputs whose output was made from them with the same options and model."""


@command(
    app,
    examples=[
        ("av2tsam segment dog.mp4 -o out.mp4", "highlight the sound source"),
        ("av2tsam segment dog.mp4 -o dog.mov -f cutout", "cut it out"),
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
    batch: BatchOptions,
    model: ModelOptions,
    compile: Annotated[  # noqa: A002 - the option's name
        bool,
        Option(
            "compile the network, which pays off for long videos",
            panel=Panel.ADVANCED,
        ),
    ] = False,
    devices: Annotated[
        int,
        Option(
            "GPUs to process inputs on, each in a process of its own; on CPUs, processes that "
            "share the cores",
            panel=Panel.ADVANCED,
            metavar="N",
            minimum=1,
        ),
    ] = 1,
    messages: Messages,
) -> int:
    """Highlight the sound source in videos, or write masks of it."""
    found = find_inputs(inputs, search, out=out, allow_url=options.allow_url)
    if batch.name_template is not None:
        found = name_outputs(found, batch.name_template, out)
    job = SegmentJob({each.path: each for each in found}, out, options, model, compile, batch)
    devices = 1 if batch.dry_run else min(devices, len(job.inputs))
    prepare = assign_devices(devices, model.device)
    if devices > 1 and messages.progress_style == "bar":
        messages = replace(messages, progress="lines")  # several bars would overwrite each other
    console = Console(messages)
    reports = Batch(list(job.inputs), console, json=messages.json, keys=KEYS, shares=devices)
    with console.logged():
        work = _JobRunner(job, console, reports).run
        return run_isolated(reports, work, outs=job.folders, prepare=prepare)


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
    batch: BatchOptions
    """How they are processed."""

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

    def place(self, source: Path) -> tuple[Format, Path, dict[str, Path]]:
        """Return the format for an input, its main output, and the files beside it by option."""
        from av2tsam_cli.plan import place_output

        name, suffix = self.inputs[source].name, self.inputs[source].suffix
        kind, output = place_output(self.out, name, self.options.format, suffix)
        return kind, output, self.options.sides(name)

    def outputs(self, source: Path) -> dict[str, Path]:
        """Return everything that is written for an input, by the options that ask for it."""
        _, output, sides = self.place(source)
        return {"out": output, **sides}


class _JobRunner:
    """Runs a job: all inputs with one model."""

    def __init__(self, job: SegmentJob, console: Console, batch: Batch) -> None:
        self.job = job
        self.console = console
        self.batch = batch
        self._model: ModelIdentity | None = None  # if existing outputs are skipped
        self._segmenter: Segmenter | None = None

    def run(self) -> int:
        """Check pending inputs, load the model, process the inputs, and return the exit code.

        Videos are probed in blocks, so that the first of very many does not wait for all.
        """
        attempt, sources = self.batch.attempt, list(self.job.inputs)
        check_outputs(sources, list(map(self.job.outputs, sources)), named=self.job.outs)
        for each in self.batch.pending:
            attempt(each, partial(check_input, each))
        if self.job.batch.skip_existing:
            self._model = self.batch.attempt_all(self._identify)
        pending = self.batch.pending
        progress = self.batch.progress(dict.fromkeys(pending))
        for first in range(0, len(pending), PROBED_AHEAD):
            block = pending[first : first + PROBED_AHEAD]
            plans = [plan for each in block if (plan := attempt(each, partial(self._plan, each)))]
            progress.expect(block, {plan.info.path: plan.frames for plan in plans})
            if self.job.batch.dry_run:
                for plan in plans:
                    self._show(plan)
            elif plans and not self._process(plans, progress):
                break
        return self.batch.exit_code

    def _process(self, plans: "Sequence[SegmentPlan]", progress: BatchProgress) -> bool:
        """Process inputs; return False if the model cannot be loaded, so that all have failed."""
        if self._segmenter is None:
            self._segmenter = self.batch.attempt_all(partial(self._load, plans))
        if self._segmenter is None:
            return False
        for plan in plans:
            work = partial(self._segment, plan, self._segmenter, progress)
            self.batch.attempt(plan.info.path, work)
        return True

    def _identify(self) -> "ModelIdentity":
        from av2tsam_cli.inference.loading import identify

        choice = self.job.model
        return identify(
            choice.model,
            use=self.job.options.use,
            device=choice.device,
            precision=choice.precision,
        )

    def _plan(self, source: Path) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped."""
        from av2tsam_cli.plan import plan_video

        options = self.job.options
        if self._model is not None:
            again = self._why_again(source, self._model)
            if again == "":
                self._skip(source)
                return None
            options = replace(options, overwrite=options.overwrite or again is not None)
        name, suffix = self.job.inputs[source].name, self.job.inputs[source].suffix
        return plan_video(source, self.job.out, options, name=name, suffix=suffix)

    def _why_again(self, source: Path, model: "ModelIdentity") -> str | None:
        """Return why an existing output is replaced; "" if it is kept, None if there is none.

        Raises:
            UsageError: It is another one and may not be replaced.
        """
        from av2tsam_cli.outputs.record import why_different
        from av2tsam_cli.plan import record_of

        kind, output, sides = self.job.place(source)
        if not os.path.lexists(output):
            return None
        if output.is_dir() and not any(output.iterdir()):
            return "an empty folder"
        record = record_of(source, self.job.options, kind, output, sides=sides, model=model)
        why = why_different(output, record.fingerprint)
        if why and not self.job.options.overwrite:
            raise UsageError(
                f"{output}: already exists, but {why}; set `overwrite` to replace it, or choose "
                "another path"
            )
        if not why:  # it would become the same again
            missing = [side for side in sides.values() if not side.exists()]
            why = f"{missing[0]} is missing" if missing else ""
        if why:
            self.console.note(f"{output}: is replaced ({why})")
        return why

    def _skip(self, source: Path) -> None:
        outputs = list(self.job.outputs(source).values())
        text = f"skipped, {outputs[0]} is complete and made with the same options"
        self.batch.finish(source, {"outputs": outputs}, status="skipped")
        if self.job.batch.dry_run and not self.batch.json:
            print_text(f"{escape(str(source))}: {escape(text)}\n")
        else:
            self.console.note(f"{source}: {text}")

    def _show(self, plan: "SegmentPlan") -> None:
        """Print what would be done with an input."""
        source, outputs = plan.info.path, [plan.output, *plan.sides.values()]
        record = {
            "outputs": outputs,
            "format": plan.format,
            "start": plan.options.start,
            "rate": plan.video.rate,
            "size": plan.size,
            "has_audio": plan.audio is not None,
            "frames": plan.frames,
            "duration_s": plan.duration_s,
            "text": plan.options.text,
        }
        self.batch.finish(source, record, status="planned")
        if not self.batch.json:
            frames = "?" if plan.frames is None else plan.frames
            seconds = "?" if plan.duration_s is None else f"{plan.duration_s:.1f}"
            names = escape(f"{source} -> {', '.join(map(str, outputs))}")
            print_text(f"{names}: {plan.format}, {frames} frames, {seconds} s\n")

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
        is_default = choice.model is None and segmenter.model.name == "nano"
        if is_default and self.batch.is_first:
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
