"""How words become values, and the options that several commands share."""

import math
from collections.abc import Sequence
from fractions import Fraction
from glob import glob
from pathlib import Path
from typing import Annotated, Literal

import typer

NETWORK = "Network"
TALK = "What it says"
EXPERT = "Expert options"
DATA = "Data"

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option("--device", help="Where the network runs.", rich_help_panel=NETWORK),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FILE",
        help="A model that 'av2tsam models list' shows, or a checkpoint.",
        show_default="the best that is installed",
        rich_help_panel=NETWORK,
    ),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(
        "--precision",
        help="Numbers that the network runs in; auto is bf16 on GPUs that have it and on CPUs that "
        "are much faster in it, fp32 elsewhere.",
        rich_help_panel=EXPERT,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        metavar="N",
        help="Frames per run of the network; memory grows with it.",
        show_default="what suits the device and the model",
        rich_help_panel=EXPERT,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object per result on stdout.", rich_help_panel=TALK
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        help="Print nothing but errors: no notes, no progress bar.",
        rich_help_panel=TALK,
    ),
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback where something goes wrong.", rich_help_panel=TALK
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="avsbench|DIR",
        help="AVSBench, or a folder in its layout, such as 'av2tsam data synth' makes.",
        rich_help_panel=DATA,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Where AVSBench is.",
        show_default="$AVSBENCH_ROOT, else ./avsbench_data",
        rich_help_panel=DATA,
    ),
]
Subset = Annotated[
    Literal["s4", "ms3", "avss"],
    typer.Option(
        "--subset",
        help="Single source, multiple sources, or AVSBench-semantic as binary masks.",
        rich_help_panel=DATA,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave damaged videos out, and name them, instead of stopping.",
        rich_help_panel=DATA,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where CLIP and CLAP embeddings are kept, computed once per model and video.",
        show_default="beside the installed models",
        rich_help_panel=DATA,
    ),
]
Devices = Annotated[
    int,
    typer.Option(
        "--devices",
        min=1,
        metavar="N",
        help="Processes, each with a device of its own; torchrun overrules it.",
        rich_help_panel=NETWORK,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what exists.", rich_help_panel="Output")
]


def new_app(help_text: str | None = None) -> typer.Typer:
    """An app whose errors are ours to show."""
    return typer.Typer(
        help=help_text,
        add_completion=False,
        rich_markup_mode="markdown",  # joins the lines of a paragraph
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def seconds(text: str) -> float:
    """Seconds, or [HH:]MM:SS, with decimals."""
    try:
        parts = [float(part) for part in str(text).split(":")]  # Typer parses defaults as well
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise typer.BadParameter(f"{text}: give seconds or [HH:]MM:SS, such as 90 or 1:30")
    total_s = 0.0
    for part in parts:
        total_s = total_s * 60 + part
    return total_s


def rate(text: str) -> Fraction:
    """A rate per second, exact: 25, 12.5 or 30000/1001."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise typer.BadParameter(f"{text}: give a number above 0, such as 5 or 30000/1001")
    return value


def decibels(text: str) -> float:
    """A level in dBFS; `off` is the level that nothing is below."""
    if text == "off":
        return -math.inf
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text}: give a level such as -60, or off") from error


def levels(text: str) -> float | None:
    """A difference in levels of 0 to 255, or off."""
    if text == "off":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 255.0:
        raise typer.BadParameter(f"{text}: give levels from 0 to 255, such as 2, or off")
    return value


def probability(text: str) -> float:
    """A number between 0 and 1, both left out."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise typer.BadParameter(f"{text}: give a number between 0 and 1, such as 0.5")
    return value


def expand(words: Sequence[str]) -> tuple[Path, ...]:
    """The files that the words name, each once: patterns that no shell has expanded are expanded.

    A word that matches nothing stays as it is, so that opening it can say what is wrong.
    """
    paths: dict[Path, Path] = {}
    for word in words:
        matches = [] if Path(word).exists() else sorted(glob(word, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
        files = [Path(match) for match in matches if Path(match).is_file()]
        for path in files or [Path(word)]:
            paths.setdefault(path.resolve(), path)
    return tuple(paths.values())
