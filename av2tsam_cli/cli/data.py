"""`av2tsam data`: make data sets of audio-visual scenes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from av2tsam_cli.cli.console import Console, print_json
from av2tsam_cli.cli.options import Debug, Json, Overwrite, Quiet, new_app

DEFAULT_VIDEOS = 100

app = new_app("Make data sets of audio-visual scenes.")


@app.callback()
def data() -> None:
    """Make data sets of audio-visual scenes."""


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
