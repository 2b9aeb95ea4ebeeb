"""`av2tsam data`: make data sets of audio-visual scenes, and check data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from av2tsam_cli.cli.console import Console, print_json, print_text
from av2tsam_cli.cli.options import DataRoot, Debug, Json, Overwrite, Quiet, new_app
from av2tsam_cli.errors import MediaError

if TYPE_CHECKING:  # else --help would wait for NumPy and PyAV
    from av2tsam_cli.data.avsbench import Subset
    from av2tsam_cli.data.check import SubsetReport

DEFAULT_VIDEOS = 100
SHOWN_PROBLEMS = 20
"""Damaged files that people are shown; --json lists them all."""

app = new_app("Make data sets of audio-visual scenes, and check data sets.")


@app.callback()
def data() -> None:
    """Make data sets of audio-visual scenes, and check data sets."""


def split_sizes(text: str) -> tuple[int, int, int]:
    """Three whole numbers: TRAIN,VAL,TEST."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"{text}: give three whole numbers, such as 70,15,15")
    train, val, test = (int(part) for part in parts)
    return train, val, test


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make it in.")],
    *,
    subset: Annotated[
        Literal["s4", "ms3"],
        typer.Option(help="One sounding object, or several that take turns and overlap."),
    ] = "s4",
    videos: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="How many.", show_default=f"{DEFAULT_VIDEOS}, or the splits'"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="S", help="The same seed makes the same data set.")
    ] = 0,
    splits: Annotated[
        # A tuple would ask for three words; the parser makes one of one word.
        object,
        typer.Option(
            "--split-sizes",
            parser=split_sizes,
            metavar="TRAIN,VAL,TEST",
            help="Videos in each split.",
            show_default="70, 15 and 15 % of --videos",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes.", show_default="one per core"),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Make short videos with synthesised sound and exact masks, in AVSBench's layout."""
    from av2tsam_cli.synth.dataset import write_dataset

    sizes = splits if isinstance(splits, tuple) else None
    count = videos or (sum(sizes) if sizes else DEFAULT_VIDEOS)
    console = Console(quiet=quiet, debug=debug)
    with console.progress("videos", count) as update:
        write_dataset(
            out,
            subset=subset,
            videos=count,
            seed=seed,
            split_sizes=sizes,
            overwrite=overwrite,
            workers=workers,
            progress=(lambda done, _total: update(done)) if update else None,
        )
    console.note(f"{out}: {count} videos of {subset}, seed {seed}")
    if json:
        print_json({"out": out, "subset": subset, "videos": count, "seed": seed})
    return 0


@app.command()
def check(
    data: Annotated[
        str, typer.Argument(metavar="PATH", help="The folder of a data set, or 'avsbench'.")
    ],
    *,
    subset: Annotated[
        Literal["s4", "ms3", "avss"] | None,
        typer.Option(help="Only this subset.", show_default="all that are there"),
    ] = None,
    data_root: DataRoot = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """Show what a data set in AVSBench's layout holds, and which files are missing or damaged."""
    from av2tsam_cli.data.avsbench import SUBSETS, find_root, find_subsets

    root = find_root(data, data_root)
    subsets = (subset,) if subset else find_subsets(root)
    if not subsets:
        raise MediaError(
            f"{root}: holds none of AVSBench's subsets ({', '.join(SUBSETS)}); name the folder "
            "that holds Single-source, Multi-sources or AVSBench_semantic"
        )
    console = Console(quiet=quiet, debug=debug)
    return max([_check(console, root, each, json=json) for each in subsets])


def _check(console: Console, root: Path, subset: "Subset", *, json: bool) -> int:
    """Check one subset and say what was found; the exit code says whether it is whole."""
    from av2tsam_cli.data.check import check_subset

    try:
        with console.progress(f"videos of {subset}", None) as update:
            report = check_subset(root, subset, update)
    except MediaError as error:
        console.error(error)
        if json:
            print_json({"subset": subset, "root": root, "error": str(error)})
        return error.exit_code
    if json:
        print_json({"root": root, **report.to_record()})
    else:
        print_text(_table(report))
    for problem in report.problems[:SHOWN_PROBLEMS]:
        console.error(MediaError(problem.reason))
    if (more := len(report.problems) - SHOWN_PROBLEMS) > 0:
        console.note(f"{subset}: and {more} more files; --json lists them all")
    return MediaError.exit_code if report.problems else 0


def _table(report: "SubsetReport") -> str:
    """Videos by split and category, as text."""
    from av2tsam_cli.data.avsbench import SPLITS

    counts = {split: report.categories(split) for split in SPLITS}
    categories = sorted(set().union(*counts.values()))
    rows: list[tuple[object, ...]] = [
        (report.subset, *SPLITS),
        *((name, *(counts[split].get(name, 0) for split in SPLITS)) for name in categories),
        ("videos", *map(report.videos, SPLITS)),
        ("labelled frames", *map(report.labelled, SPLITS)),
    ]
    width = max(len(str(row[0])) for row in rows)
    lines = [f"{name:<{width}}" + "".join(f"{c:>9}" for c in cells) for name, *cells in rows]
    if frames := report.decoded_frames:
        lines.append(f"{frames} videos without extracted frames; they come from raw_videos")
    if sounds := report.decoded_sounds:
        lines.append(f"{sounds} videos without a WAV; their sound comes from raw_videos")
    damaged = len({problem.clip for problem in report.problems})
    files = f"{len(report.problems)} files of {damaged} videos are missing or damaged"
    lines.append(files if damaged else "every file is there and whole")
    return "\n".join(lines) + "\n\n"
