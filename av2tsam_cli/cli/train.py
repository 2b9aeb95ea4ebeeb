"""`av2tsam train`: train a model on AVSBench or on data in its layout."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from av2tsam_cli.cli.console import Console, Stages, print_json
from av2tsam_cli.cli.options import (
    DATA,
    EXPERT,
    NETWORK,
    Cache,
    Data,
    DataRoot,
    Debug,
    Device,
    Devices,
    Json,
    Overwrite,
    Precision,
    Quiet,
    SkipBad,
    Subset,
    new_app,
)
from av2tsam_cli.errors import Interrupted
from av2tsam_cli.training.callback import EpochRow, StepRow, TrainingCallback
from av2tsam_cli.training.options import RESULT_OPTIONS, TrainOptions

if TYPE_CHECKING:
    from av2tsam_cli.training.loop import TrainResult

OUTPUT = "Output"
SCHEDULE = "Training"
COLUMNS = ("epoch", "loss", "val mIoU", "val F", "lr", "clips/s", "minutes")
COLUMN_WIDTH = 10

app = new_app()


@app.command()
def train(
    context: typer.Context,
    *,
    out: Annotated[
        Path,
        typer.Option(metavar="RUN", help="The run folder; a new one.", rich_help_panel=OUTPUT),
    ],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the interrupted run in --out, with its own options.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Overwrite = False,
    data: Data = "avsbench",
    data_root: DataRoot = None,
    subset: Subset = "s4",
    train_clips: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Train on N videos only, drawn by the seed.",
            show_default="all",
            rich_help_panel=DATA,
        ),
    ] = None,
    skip_bad: SkipBad = False,
    cache: Cache = None,
    cache_features: Annotated[
        bool,
        typer.Option(
            "--cache-features",
            help="Keep SAM's image features there too: much faster, much disk; with --no-adapter.",
            rich_help_panel=DATA,
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Where the weights start: nano, evf-sam, evf-sam2, or a checkpoint.",
            show_default="the best text-prompted SAM that is installed, else nano",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    init: Annotated[
        Literal["fresh", "model"],
        typer.Option(
            help="fresh: projector and adapters start anew, the rest as in the model, as in the "
            "paper; the name of a preset then means its text-prompted SAM. model: all starts as "
            "in the model, to train it further.",
            rich_help_panel=NETWORK,
        ),
    ] = "fresh",
    clap: Annotated[
        Literal["laion", "microsoft"] | None,
        typer.Option(
            help="Which CLAP hears.", show_default="the model's own", rich_help_panel=NETWORK
        ),
    ] = None,
    projector: Annotated[
        Literal["mul", "clap", "clip"] | None,
        typer.Option(
            help="What becomes text tokens: the product of CLIP and CLAP, or one of them alone.",
            show_default="the model's own: mul",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    adapter: Annotated[
        bool | None,
        typer.Option(
            "--adapter/--no-adapter",
            help="Whether each block of the image encoder is told the feature.",
            show_default="the model's own: yes",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    device: Device = "auto",
    devices: Devices = 1,
    epochs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Passes over the training videos.", rich_help_panel=SCHEDULE
        ),
    ] = 40,
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Videos per step of the optimiser, over all devices together.",
            rich_help_panel=SCHEDULE,
        ),
    ] = 8,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="K",
            help="Take each batch in K parts, one after the other: less memory, the same result.",
            rich_help_panel=SCHEDULE,
        ),
    ] = 1,
    lr: Annotated[
        float,
        typer.Option(
            metavar="RATE", help="Learning rate of the first epoch.", rich_help_panel=SCHEDULE
        ),
    ] = 2e-4,
    min_lr: Annotated[
        float,
        typer.Option(metavar="RATE", help="Where the cosine ends.", rich_help_panel=SCHEDULE),
    ] = 1e-7,
    clip_norm: Annotated[
        float | None,
        typer.Option(
            metavar="LENGTH",
            help="Longest gradient; longer ones are shortened to it.",
            show_default="none is",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="S",
            help="Decides fresh weights and the order of the videos.",
            rich_help_panel=SCHEDULE,
        ),
    ] = 123,
    max_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop after N steps in all; --resume goes on.",
            show_default="after the last epoch",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    precision: Precision = "auto",
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing",
            help="Compute the encoders' activations anew for the gradient: less memory, slower.",
            show_default="where the network is large",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Threads that read the data.",
            show_default="one per core, at most 4",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    wandb: Annotated[
        bool,
        typer.Option(
            "--wandb", help="Report to Weights & Biases, if installed.", rich_help_panel=OUTPUT
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Train projector, adapters, mask decoder and prompt head on AVSBench, as the paper does.

    The run folder gets best.safetensors (the epoch with the highest validation mIoU) and
    last.safetensors, epochs.csv, steps.csv, curves.png, run.json, and what --resume needs. Ctrl-C
    and SIGTERM save first. The same seed and options give the same result, however the batch is
    shared between devices and parts, but for rounding.
    """
    options = TrainOptions(
        out=out,
        data=data,
        data_root=data_root,
        subset=subset,
        train_clips=train_clips,
        model=model,
        init=init,
        clap=clap,
        projector=projector,
        adapter=adapter,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        min_lr=min_lr,
        clip_norm=clip_norm,
        seed=seed,
        precision=precision,
        device=device,
        devices=devices,
        accumulate=accumulate,
        gradient_checkpointing=gradient_checkpointing,
        max_steps=max_steps,
        workers=workers,
        skip_bad=skip_bad,
        cache=cache,
        cache_features=cache_features,
        wandb=wandb,
        resume=resume,
        overwrite=overwrite,
    )
    if resume:
        options = _resumed(options, given=_given(context))
    return _run(options, json=json, quiet=quiet, debug=debug)


def _given(context: typer.Context) -> set[str]:
    """Return the options that were given on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _resumed(options: TrainOptions, given: set[str]) -> TrainOptions:
    """Return the options of a resumed run: its own, unless given on the command line."""
    from av2tsam_cli.training.run_folder import read_record

    original = TrainOptions.from_json(read_record(options.out)["options"])
    kept = {*RESULT_OPTIONS, "data", "data_root"} - given
    return replace(options, **{name: getattr(original, name) for name in kept})


def _run(options: TrainOptions, *, json: bool, quiet: bool, debug: bool) -> int:
    """Train, and report in the first process."""
    from av2tsam_cli.inference.distributed import OtherProcessFailed, process_rank
    from av2tsam_cli.training.loop import train as train_model

    is_first = process_rank() == 0
    console = Console(quiet=quiet or not is_first, debug=debug)
    try:
        with console.logged(), TrainingProgress(console) as progress:
            result = train_model(options, progress)
    except (Interrupted, OtherProcessFailed) as error:
        if is_first:
            raise
        # Lightning kills the first process, even while it saves, as soon as another one fails.
        return 0 if isinstance(error, Interrupted) else error.exit_code
    if is_first:
        console.note(_summary(result))
        if json:
            print_json(_json_record(result))
    return 0


def _summary(result: "TrainResult") -> str:
    best = result.best
    return (
        f"{result.checkpoint}: epoch {best.epoch}, validation mIoU {best.val_miou:.4f}, "
        f"F {best.val_f_score:.4f}; {result.steps} steps in total"
    )


def _json_record(result: "TrainResult") -> dict[str, object]:
    return {
        "out": result.out,
        "checkpoint": result.checkpoint,
        "best": asdict(result.best),
        "epochs": [asdict(row) for row in result.epochs],
        "steps": result.steps,
    }


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
