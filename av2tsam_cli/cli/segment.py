"""`av2tsam segment`: highlight the sound source in videos, or write masks of it."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.batch import Batch, check_outputs
from av2tsam_cli.cli.console import Console, escape, print_text
from av2tsam_cli.cli.devices import assign_devices
from av2tsam_cli.cli.inputs import InputOptions, find_inputs, name_outputs, needs_listing
from av2tsam_cli.cli.isolation import run_in_child, run_isolated
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.cli.progress import BatchProgress
from av2tsam_cli.cluster.resources import RayOptions
from av2tsam_cli.errors import UsageError
from av2tsam_cli.job import NANO_NOTE, Input, JobRunner, SegmentJob, check_input, skip_message
from av2tsam_cli.network import is_stored, url_of
from av2tsam_cli.options import Messages, ModelOptions, Option, Panel
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.stores import output_path

if TYPE_CHECKING:
    from av2tsam_cli.plan import SegmentPlan

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
"""The keys of the JSON for an input, with the values to use where they are unknown."""

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
    """Template for the names of outputs, see `inputs.name_outputs`; None for the input names."""
    dry_run: Annotated[
        bool, Option("only print what would be done", panel=Panel.INPUTS, short="-n")
    ] = False
    """Whether to only print the plan, without loading a model or writing anything."""
    skip_existing: Annotated[
        bool, Option("skip inputs that are done with these options", panel=Panel.OUTPUT)
    ] = False
    """Whether to skip inputs whose output is complete and made with the same options and model."""
    staging: Annotated[
        Path | None,
        Option(
            "folder for local copies of inputs and outputs with URLs",
            panel=Panel.INPUTS,
            metavar="DIR",
            default="the system's temporary folder",
        ),
    ] = None
    """Folder for local copies of inputs and outputs with URLs; None for the system's temporary
    folder."""


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
            parse=output_path,
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
            "number of GPUs to use, each with its own process; on CPUs, number of processes that "
            "share the cores",
            panel=Panel.ADVANCED,
            metavar="N",
            minimum=1,
        ),
    ] = 1,
    cluster: RayOptions,
    messages: Messages,
) -> int:
    """Highlight the sound source in videos, or write masks of it."""
    find = partial(find_inputs, inputs, search, out=out, allow_url=options.allow_url)
    found = run_in_child(find) if any(map(needs_listing, inputs)) else find()
    if batch.name_template is not None:
        found = name_outputs(found, batch.name_template, out)
    job = SegmentJob(
        out,
        options,
        model,
        compile=compile,
        skip_existing=batch.skip_existing,
        staging=batch.staging,
    )
    if devices > 1 and cluster.ray is not None:
        raise UsageError("`devices` and `ray` exclude each other; set `workers` instead")
    devices = 1 if batch.dry_run else min(devices, len(found))
    prepare = assign_devices(devices, model.device)
    if devices > 1 and messages.progress_style == "bar":
        messages = replace(messages, progress="lines")  # several bars would overwrite each other
    console = Console(messages)
    sources = [each.path for each in found]
    reports = Batch(sources, console, json=messages.json, keys=KEYS, shares=devices)
    check_outputs(sources, list(map(job.outputs, found)), named=job.outs)
    with console.logged():
        if cluster.ray is not None and not batch.dry_run:
            from av2tsam_cli.cli.workers import WorkersRun

            return WorkersRun(found, job, console, reports, cluster).run()
        local = _LocalRun(found, job, console, reports, dry_run=batch.dry_run)
        return run_isolated(reports, local.run, outs=local.folders, prepare=prepare)


class _LocalRun:
    """Processes all inputs of a job in this process."""

    def __init__(
        self,
        inputs: Sequence[Input],
        job: SegmentJob,
        console: Console,
        batch: Batch,
        *,
        dry_run: bool,
    ) -> None:
        self.inputs: Mapping[Path, Input] = {each.path: each for each in inputs}
        self.job = job
        self.console = console
        self.batch = batch
        self.dry_run = dry_run
        self.runner = JobRunner(job, console.note)

    @property
    def folders(self) -> list[Path]:
        """The local folders and files that outputs are written to."""
        folders = {each.name.parent for each in self.inputs.values()}
        outs = [out for out in self.job.outs.values() if not url_of(out)]
        paths = [out / folder for out in outs for folder in folders]
        return [*paths, self.job.staging_folder]

    def run(self) -> int:
        """Check pending inputs, load the model, process the inputs, and return the exit code.

        Videos are probed in blocks, so that the first result does not wait until all are probed.
        Videos in stores are probed one by one, because they are copied first.
        """
        with closing(self.runner):
            return self._run()

    def _run(self) -> int:
        attempt = self.batch.attempt
        for each in self.batch.pending:
            attempt(each, partial(check_input, self.inputs[each]))
        if not self.dry_run:
            self.batch.attempt_all(self.runner.check_stores)
        if self.job.skip_existing:
            self.batch.attempt_all(self.runner.identify)
        pending = self.batch.pending
        progress = self.batch.progress(dict.fromkeys(pending))
        count = 1 if any(map(is_stored, pending)) else PROBED_AHEAD
        for first in range(0, len(pending), count):
            block = pending[first : first + count]
            plans = [plan for each in block if (plan := attempt(each, partial(self._plan, each)))]
            for each in pending[first + count : first + count + 1]:
                self.runner.prefetch(self.inputs[each])
            progress.expect(block, {plan.info.path: plan.frames for plan in plans})
            if self.dry_run:
                for plan in plans:
                    self._show(plan)
                    self.runner.drop(plan)
            elif plans and not self._process(plans, progress):
                break
        return self.batch.exit_code

    def _process(self, plans: "Sequence[SegmentPlan]", progress: BatchProgress) -> bool:
        """Process inputs; return False if they all failed because the model cannot be loaded."""
        if not self.runner.is_loaded:
            more = len(plans) < len(self.batch.pending)
            frames = None if more else sum(plan.frames or 0 for plan in plans)
            if self.batch.attempt_all(partial(self.runner.load, frames)) is None:
                return False
            if self.runner.has_fallback and self.batch.is_first:
                self.console.note(NANO_NOTE)
        for plan in plans:
            self.batch.attempt(plan.info.path, partial(self._segment, plan, progress))
        return True

    def _plan(self, source: Path) -> "SegmentPlan | None":
        """Check an input; return None if it is skipped."""
        plan = self.runner.plan(self.inputs[source])
        if plan is None:
            self._skip(source)
        return plan

    def _skip(self, source: Path) -> None:
        outputs = list(self.job.outputs(self.inputs[source]).values())
        text = skip_message(outputs[0])
        self.batch.finish(source, {"outputs": outputs}, status="skipped")
        if self.dry_run and not self.batch.json:
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

    def _segment(self, plan: "SegmentPlan", batch: BatchProgress) -> None:
        source = plan.info.path
        with self.console.progress(source, plan.frames, batch=batch) as progress:
            result = self.runner.segment(plan, progress)
        self.batch.finish(source, asdict(result))
