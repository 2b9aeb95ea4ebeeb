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

if TYPE_CHECKING:
    from av2tsam_cli.training.loop import RunResult
    from av2tsam_cli.training.options import TrainOptions
    from av2tsam_cli.training.progress import EpochRow, StepRow

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
    recompute: Annotated[
        bool | None,
        typer.Option(
            "--recompute/--no-recompute",
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
    from av2tsam_cli.training.options import TrainOptions

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
        recompute=recompute,
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
        options = _continued(options, asked=_asked(context))
    return _run(options, json=json, quiet=quiet, debug=debug)


def _asked(context: typer.Context) -> set[str]:
    """Options that were given, rather than left at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def _continued(options: "TrainOptions", asked: set[str]) -> "TrainOptions":
    """The options of a run that goes on: its own, where nothing was asked for."""
    from av2tsam_cli.training.options import RESULT_OPTIONS, TrainOptions
    from av2tsam_cli.training.run_folder import read_record

    begun = TrainOptions.from_json(read_record(options.out)["options"])
    kept = {*RESULT_OPTIONS, "data", "data_root"} - asked
    return replace(options, **{name: getattr(begun, name) for name in kept})


def _run(options: "TrainOptions", *, json: bool, quiet: bool, debug: bool) -> int:
    """Train, and let the first process report."""
    from av2tsam_cli.inference.distributed import OtherProcessFailed, rank_of_process
    from av2tsam_cli.training.loop import train as train_model

    first = rank_of_process() == 0
    console = Console(quiet=quiet or not first, debug=debug)
    try:
        with console.logged(), _Screen(console) as screen:
            result = train_model(options, screen)
    except (Interrupted, OtherProcessFailed) as error:
        if first:
            raise
        # Lightning kills the first process at once where another one fails, even while it saves.
        return 0 if isinstance(error, Interrupted) else error.exit_code
    if first:
        console.note(_summary(result))
        if json:
            print_json(_record(result))
    return 0


def _summary(result: "RunResult") -> str:
    best = result.best
    return (
        f"{result.checkpoint}: epoch {best.epoch}, validation mIoU {best.val_miou:.4f}, "
        f"F {best.val_f_score:.4f}; {result.steps} steps in all"
    )


def _record(result: "RunResult") -> dict[str, object]:
    return {
        "out": result.out,
        "checkpoint": result.checkpoint,
        "best": asdict(result.best),
        "epochs": [asdict(row) for row in result.epochs],
        "steps": result.steps,
    }


class _Screen(Stages):
    """Shows a training to people: a bar for what is under way, a line per epoch."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "videos")
        self.has_head = False

    def embedding(self, done: int, total: int) -> None:
        """So many of the videos whose embeddings were missing are embedded."""
        self.show("embeddings", done, total)

    def epoch_begins(self, epoch: int, epochs: int, videos: int) -> None:
        """An epoch begins."""
        self.epoch = f"epoch {epoch} of {epochs}"
        self.videos = videos
        self.show(self.epoch, 0, videos)

    def step(self, row: "StepRow", videos: int) -> None:
        """A step was done."""
        del row
        self.show(self.epoch, videos, self.videos)

    def validating(self, done: int, total: int) -> None:
        """So many videos of the validation split are scored."""
        self.show("validation", done, total)

    def epoch_ends(self, row: "EpochRow") -> None:
        """An epoch was trained, scored and saved."""
        self.close()
        if not self.has_head:
            self.console.row(COLUMNS, COLUMN_WIDTH)
            self.has_head = True
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
