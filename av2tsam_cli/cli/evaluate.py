"""`av2tsam evaluate`: how good a model's masks are on AVSBench, also with negative sound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from av2tsam_cli.cli.console import Console, Stages, print_json, print_table, print_text
from av2tsam_cli.cli.options import (
    DATA,
    EXPERT,
    BatchSize,
    Cache,
    Data,
    DataRoot,
    Debug,
    Device,
    Devices,
    Json,
    Model,
    Overwrite,
    Precision,
    Quiet,
    SkipBad,
    Subset,
    decibels,
    new_app,
)
from av2tsam_cli.errors import Av2tsamError

if TYPE_CHECKING:
    from av2tsam_cli.evaluation.evaluate import EvaluationPlan
    from av2tsam_cli.evaluation.evaluation import EvaluateOptions, Evaluation
    from av2tsam_cli.inference.distributed import Processes
    from av2tsam_cli.inference.loading import LoadedModel

OUTPUT = "Output"
SCORE = "What is scored"

app = new_app()


@app.command()
def evaluate(
    *,
    data: Data = "avsbench",
    data_root: DataRoot = None,
    subset: Subset = "s4",
    split: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Which videos.", rich_help_panel=DATA)
    ] = "test",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the first so many videos.",
            show_default="all",
            rich_help_panel=DATA,
        ),
    ] = None,
    skip_bad: SkipBad = False,
    cache: Cache = None,
    protocol: Annotated[
        Literal["avsbench", "reference"],
        typer.Option(
            help="Whose rules: AVSBench's, or those of the AV2T-SAM reference, which computes F on "
            "raw logits and knows no silence gate.",
            rich_help_panel=SCORE,
        ),
    ] = "avsbench",
    audio: Annotated[
        Literal["original", "silence", "noise", "offscreen"],
        typer.Option(
            help="What is heard: each video's own sound; or, after that, one with which nothing in "
            "it sounds: digital silence, white noise over the whole range, or the sound of another "
            "video of the split, of another category where there are any.",
            rich_help_panel=SCORE,
        ),
    ] = "original",
    reference_audio: Annotated[
        bool,
        typer.Option(
            "--reference-audio",
            help="Prepare sound as the reference does: sinc resampling, channels one after the "
            "other.",
            rich_help_panel=SCORE,
        ),
    ] = False,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A line per video.", rich_help_panel=OUTPUT),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="A picture of the worst and the best videos: found highlighted, true outlined.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    save_masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The masks as 0/255 PNGs, laid out as AVSBench's gt_masks; a new folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    model: Model = None,
    device: Device = "auto",
    devices: Devices = 1,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    silence_dbfs: Annotated[
        float | None,
        typer.Option(
            parser=decibels,
            metavar="LEVEL",
            help="Seconds of sound below this RMS level, in dB relative to full scale, get an "
            "empty mask; off: none do.",
            show_default="-60 as in segment; off with --protocol reference",
            rich_help_panel=EXPERT,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="S",
            help="Decides the noise, and whose sound a video gets.",
            rich_help_panel=EXPERT,
        ),
    ] = 0,
    precision: Precision = "auto",
    batch_size: BatchSize = None,
) -> int:
    """Score a model on AVSBench, or on other data in its layout.

    mIoU and F are means over videos, by AVSBench's protocol. A negative sound (--audio) is scored
    as in AVSBench-Robust (arXiv 2502.00358): the false-positive rate is the share of pixels that
    are found though nothing in the picture sounds, and mIoU and F judge original and negative
    sound together, as the harmonic mean of the score with the original sound and one minus the
    score with the negative one, which is how its G-mIoU and G-F are read here. Where the silence
    gate emptied masks, the scores of the network alone are given as well. Several processes give
    the same digits as one.
    """
    from av2tsam_cli.evaluation.evaluation import EvaluateOptions
    from av2tsam_cli.evaluation.metrics import ScoringProtocol

    request = Request(
        options=EvaluateOptions(
            data=data,
            data_root=data_root,
            subset=subset,
            split=split,
            protocol=ScoringProtocol(protocol),
            audio=audio,
            reference_audio=reference_audio,
            silence_dbfs=silence_dbfs,
            limit=limit,
            skip_bad=skip_bad,
            seed=seed,
            batch_size=batch_size,
            cache=cache,
        ),
        csv=csv,
        sheet=contact_sheet,
        masks=save_masks,
        overwrite=overwrite,
        model=model,
        device=device,
        devices=devices,
        precision=precision,
    )
    return _run(request, quiet=quiet, debug=debug, json=json)


@dataclass(frozen=True)
class Request:
    """Everything that was asked for."""

    options: "EvaluateOptions"
    """What to score and how."""
    csv: Path | None
    """A line per video."""
    sheet: Path | None
    """A picture of examples."""
    masks: Path | None
    """A new folder for the masks."""
    overwrite: bool
    """Whether files that exist are replaced."""
    model: str | None
    """Name or path; None for the best installed one."""
    device: str
    """`auto`, `cpu`, `cuda` or `mps`."""
    devices: int
    """Processes."""
    precision: str
    """`auto`, `fp32`, `bf16` or `fp16`."""


def _run(request: Request, *, quiet: bool, debug: bool, json: bool) -> int:
    """Start the processes, score, and let the first of them report."""
    from av2tsam_cli.inference.device import choose_device
    from av2tsam_cli.inference.distributed import start_processes

    _check_outputs(request)
    processes = start_processes(choose_device(request.device).type, request.devices)
    console = Console(quiet=quiet or not processes.first, debug=debug)
    try:
        with console.logged():
            record = _score(request, console, processes)
    except Av2tsamError as error:
        if processes.first:
            raise
        return error.exit_code  # the first one says it
    if processes.first and json:
        print_json(record)
    elif not console.quiet:
        _show(record)
    return 0


def _check_outputs(request: Request) -> None:
    """Find out before the work what is in the way of the results."""
    from av2tsam_cli.evaluation.report import MaskTree, check_free

    for path in (request.csv, request.sheet):
        if path is not None:
            check_free(path, overwrite=request.overwrite)
    if request.masks is not None:
        MaskTree.check(request.masks)


def _score(request: Request, console: Console, processes: "Processes") -> dict[str, Any]:
    """Score, and write what was asked for.

    Returns:
        The scores as JSON values.
    """
    from av2tsam_cli.evaluation.evaluate import evaluate, plan_evaluation
    from av2tsam_cli.evaluation.report import MaskTree
    from av2tsam_cli.inference.loading import load_model

    options = request.options
    plan = plan_evaluation(options)
    model = load_model(request.model, device=request.device, precision=request.precision)
    if request.model is None:
        console.note(f"scoring {model.name}; --model names another")
    tree = MaskTree.shared(request.masks, processes) if request.masks else None
    try:
        with Stages(console, "videos") as stages:
            evaluation = evaluate(
                model,
                options,
                plan,
                processes=processes,
                keep=tree.add if tree else None,
                progress=stages.show,
            )
        if processes.first:
            _write(request, model, plan, evaluation)
            if tree is not None:
                tree.publish()
    finally:
        if tree is not None and processes.first:
            tree.discard()
    made_by = {"model": model.name, "device": model.device.type, "precision": model.precision}
    return evaluation.to_json(options) | made_by


def _write(
    request: Request, model: "LoadedModel", plan: "EvaluationPlan", evaluation: "Evaluation"
) -> None:
    """Write the line per video and the sheet of examples."""
    from av2tsam_cli.evaluation.evaluate import Masked, score_jobs
    from av2tsam_cli.evaluation.report import draw_sheet, pick_examples, video_table, write_file

    if request.csv is not None:
        write_file(request.csv, video_table(evaluation), overwrite=request.overwrite)
    if request.sheet is not None:
        jobs = {job.index: job for job in plan.jobs}
        chosen = [jobs[result.index] for result in pick_examples(evaluation.results)]
        # Made again: nothing of a long run had to be kept for it.
        again = [
            one for one in score_jobs(model, request.options, chosen) if isinstance(one, Masked)
        ]
        write_file(request.sheet, draw_sheet(again), overwrite=request.overwrite)


def _show(record: Mapping[str, Any]) -> None:
    """Write the scores for people."""
    what = f"{record['subset']} {record['split']}, {record['videos']} videos"
    whose = f"{record['model']}, {record['audio']} sound, protocol {record['protocol']}"
    print_text(f"{what}: {whose}\n\n")
    whole = "together" if "positive" in record else "all"
    rows = {whole: record, **{name: record[name] for name in PARTS if name in record}}
    columns = [name for name in FIGURES if any(name in row for row in rows.values())]
    print_table(["", *columns], [_cells(name, row, columns) for name, row in rows.items()])
    if record["categories"]:
        print_text("\n")
        columns = [name for name in columns if name in FIGURES[:3]] + ["videos"]
        rows = record["categories"]
        print_table(["category", *columns], [_cells(n, row, columns) for n, row in rows.items()])


FIGURES = ("miou", "f_score", "fpr", "frames_found")
PARTS = ("positive", "negative", "ungated")


def _cells(name: str, row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """One line of a table."""
    values = (row.get(column, "") for column in columns)
    return [name, *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in values)]
