"""`av2tsam train`: train a model on AVSBench, or on a data set in its layout."""

import logging
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.cli.console import Console, Stages, print_json, print_text
from av2tsam_cli.cli.options import Given, command, new_app
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError
from av2tsam_cli.options import Messages, Option, Panel
from av2tsam_cli.training.callback import EpochRow, StepRow, TrainingCallback
from av2tsam_cli.training.options import RESULT_OPTIONS, TrainOptions

if TYPE_CHECKING:
    from av2tsam_cli.training.result import TrainResult

log = logging.getLogger(__name__)

COLUMNS = ("epoch", "loss", "val mIoU", "val F", "lr", "clips/s", "minutes")
COLUMN_WIDTH = 10

app = new_app()


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a list of different whole numbers: S,S,..."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len({*map(int, parts)}) < len(parts):
        raise ValueError(f"{text!r} is not a list of different seeds; use for example 1,2,3")
    return tuple(map(int, parts))


Seeds = Annotated[
    tuple[int, ...] | None,
    Option(
        "train once per seed, in the folders RUN/seed-S; replaces --seed",
        panel=Panel.TRAINING,
        metavar="S,S,...",
        parse=parse_seeds,
    ),
]


@command(
    app,
    examples=[
        ("av2tsam train --subset s4 -m evf-sam2 -o runs/s4", "as in the paper"),
        ("av2tsam train --data sets/s4 -m nano -o runs/nano", "a small model on a CPU"),
        ("av2tsam train --config s4.yaml -o runs/s4", "options from a file"),
        ("av2tsam train -o runs/s4 --resume", "continue an interrupted run"),
    ],
    config=True,
)
def train(*, options: TrainOptions, seeds: Seeds = None, messages: Messages, given: Given) -> int:
    """Train projector, adapters, mask decoder and prompt head on AVSBench, as in the paper.

    The run folder receives best.safetensors (the epoch with the highest validation mIoU),
    last.safetensors, epochs.csv, steps.csv, curves.png, run.json and the state for --resume. The
    best epoch is scored on the test split at the end. Ctrl-C and SIGTERM save the state before
    exiting. The same seed and options give the same result, up to rounding, on any number of
    devices.
    """
    from av2tsam_cli.inference.device import choose_device
    from av2tsam_cli.inference.distributed import require_fabric, start_processes

    require_fabric()
    processes = start_processes(choose_device(options.device).type, options.devices)
    console = Console(messages if processes.first else messages.silent)
    try:
        with console.logged():
            # Other machines may not see the run folders, so the first process reads them for all.
            for run in processes.from_first(lambda: _plan_runs(options, seeds, given)):
                own = run if processes.first else _with_given(run, options, given)
                _run(own, console, messages if processes.first else None)
    except Interrupted:
        if processes.first:
            raise
        # Lightning kills the first process, even while it saves, as soon as another one fails.
        return 0
    except Av2tsamError as error:
        if processes.local_rank == 0:  # a line from each machine
            raise
        return error.exit_code
    return 0


def _plan_runs(
    options: TrainOptions, seeds: tuple[int, ...] | None, given: Given
) -> list[TrainOptions]:
    """Return the options of each run."""
    from av2tsam_cli.training.run_folder import check_folder

    if seeds is None:
        return [_resumed(options, given) if options.resume else options]
    runs = [replace(options, seed=seed, out=options.out / f"seed-{seed}") for seed in seeds]
    if options.resume:
        runs = _resumed_seeds(runs, given)
    for run in runs:
        check_folder(run)
    return runs


def _with_given(run: TrainOptions, options: TrainOptions, given: Given) -> TrainOptions:
    """Return the options of a run, with options such as paths as this process was given them."""
    own = given & {field.name for field in fields(options)} - {"out", "resume", "seed"}
    return replace(run, **{name: getattr(options, name) for name in own})


def _resumed_seeds(runs: list[TrainOptions], given: Given) -> list[TrainOptions]:
    """Resume the runs that have been started, and give the others the same options."""
    from av2tsam_cli.training.run_folder import has_run

    started = {run.seed: _resumed(run, given) for run in runs if has_run(run.out)}
    if not started:
        return runs
    first = next(iter(started.values()))
    return [
        started.get(run.seed, replace(first, seed=run.seed, out=run.out, resume=False))
        for run in runs
    ]


def _resumed(options: TrainOptions, given: Given) -> TrainOptions:
    """Return the options of a resumed run: those it was started with, unless given now."""
    from av2tsam_cli.inference.distributed import is_started_by_torchrun
    from av2tsam_cli.training.run_folder import RECORD, has_run, read_options

    if not has_run(options.out) and any(options.out.glob(f"seed-*/{RECORD}")):
        raise UsageError(f"{options.out}: has a run per seed; pass `seeds` too, such as 1,2,3")
    if not has_run(options.out) and is_started_by_torchrun():  # the same command restarts it
        log.warning("%s: no run to resume yet; starting one", options.out)
        return replace(options, resume=False)
    original = read_options(options.out)
    kept = {*RESULT_OPTIONS, "data", "data_root", "test"} - given
    return replace(options, **{name: getattr(original, name) for name in kept})


def _run(options: TrainOptions, console: Console, messages: Messages | None) -> None:
    """Train, and print the result unless `messages` is None."""
    from av2tsam_cli.training.loop import train as train_model

    with TrainingProgress(console) as progress:
        result = train_model(options, progress)
    if messages is None:
        return
    if messages.json:
        print_json(asdict(result))
    else:
        print_text(_summary(result))


def _summary(result: "TrainResult") -> str:
    best = result.best
    text = (
        f"{result.checkpoint}: epoch {best.epoch}, validation mIoU {best.val_miou:.4f}, "
        f"F {best.val_f_score:.4f}; {result.steps} steps in total\n"
    )
    if (test := result.test) is not None:
        videos = f"{test.videos} video{'s' if test.videos > 1 else ''}"
        text += f"test split, {videos}: mIoU {test.miou:.4f}, F {test.f_score:.4f}\n"
    return text


class TrainingProgress(Stages, TrainingCallback):
    """Shows a progress bar for the current stage, and a table with a row per epoch."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "videos")
        self.has_header = False

    def on_embedding(self, done: int, total: int) -> None:
        """Show the number of embedded videos."""
        self.show("embeddings", done, total)

    def on_epoch_start(self, epoch: int, epochs: int, videos: int) -> None:
        """Start the bar of an epoch."""
        self.epoch = f"epoch {epoch} of {epochs}"
        self.videos = videos
        self.show(self.epoch, 0, videos)

    def on_step(self, row: StepRow, videos: int) -> None:
        """Show the number of videos of the epoch that are done."""
        del row
        self.show(self.epoch, videos, self.videos)

    def on_validation(self, done: int, total: int) -> None:
        """Show the number of scored videos."""
        self.show("validation", done, total)

    def on_test(self, done: int, total: int) -> None:
        """Show the number of scored videos."""
        self.show("test", done, total)

    def on_epoch_end(self, row: EpochRow) -> None:
        """Print the epoch's row of the table."""
        self.close()
        if not self.has_header:
            self.console.row(COLUMNS, COLUMN_WIDTH)
            self.has_header = True
        minutes = (row.train_s + row.val_s) / 60
        cells = (
            f"{row.epoch}",
            f"{row.loss:.4f}",
            f"{row.val_miou:.4f}",
            f"{row.val_f_score:.4f}",
            f"{row.lr:.2e}",
            f"{row.clips_per_s:.2f}",
            f"{minutes:.1f}",
        )
        self.console.row([*cells, *(["best"] if row.best else [])], COLUMN_WIDTH)
