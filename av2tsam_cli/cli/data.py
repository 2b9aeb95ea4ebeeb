"""`av2tsam data`: generate data sets of audio-visual scenes, and check data sets."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from av2tsam_cli.avsbench_format import SPLITS, SUBSETS, Subset
from av2tsam_cli.cli.console import Console, Stages, escape, print_json, print_text
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.errors import MediaError
from av2tsam_cli.options import DataRoot, Messages, Option, Overwrite, Panel, check_values

if TYPE_CHECKING:  # --help should not wait for NumPy and PyAV
    from av2tsam_cli.data.check import SubsetReport

DEFAULT_VIDEOS = 100
PRINTED_PROBLEMS = 20
"""Number of damaged files that are printed; --json lists all of them."""

app = new_app("Generate data sets of audio-visual scenes, and check data sets.")


def parse_split_sizes(text: str) -> tuple[int, int, int]:
    """Read three whole numbers: TRAIN,VAL,TEST."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{text!r} is not three whole numbers; use for example 70,15,15")
    train, val, test = (int(part) for part in parts)
    return train, val, test


@dataclass(frozen=True)
class SynthOptions:
    """What to generate."""

    subset: Annotated[
        Subset,
        Option(
            "one sound source; several that alternate and overlap; or these with a class per "
            "pixel, as in AVSBench-semantic",
            panel=Panel.DATA,
        ),
    ] = "s4"
    """`s4`, `ms3` or `avss`."""
    off_grid: Annotated[
        bool,
        Option(
            "let sources start and stop at any time, not only at whole seconds, and write a mask "
            "for every frame of raw_videos",
            panel=Panel.DATA,
        ),
    ] = False
    """Let sources start and stop at any time, and write the mask of every frame."""
    videos: Annotated[
        int | None,
        Option(
            "number of videos",
            panel=Panel.DATA,
            metavar="N",
            default=f"{DEFAULT_VIDEOS}, or the sum of --split-sizes",
            minimum=1,
        ),
    ] = None
    """Number of videos; None for the sum of `split_sizes`, or 100."""
    split_sizes: Annotated[
        tuple[int, int, int] | None,
        Option(
            "videos in each split",
            panel=Panel.DATA,
            metavar="TRAIN,VAL,TEST",
            parse=parse_split_sizes,
            default="70, 15 and 15 % of --videos",
        ),
    ] = None
    """Number of videos in each split; None for 70, 15 and 15 %."""
    seed: Annotated[
        int,
        Option(
            "random seed; the same seed gives the same data set",
            panel=Panel.DATA,
            metavar="N",
            minimum=0,
        ),
    ] = 0
    """Random seed."""
    overwrite: Overwrite = False
    """Replace the subset if it exists."""
    workers: Annotated[
        int | None,
        Option(
            "number of processes",
            panel=Panel.ADVANCED,
            metavar="N",
            default="one per core",
            minimum=1,
        ),
    ] = None
    """Number of processes; None for one per core."""

    def __post_init__(self) -> None:
        check_values(self)

    @property
    def total(self) -> int:
        """Number of videos over all splits."""
        return self.videos or (sum(self.split_sizes) if self.split_sizes else DEFAULT_VIDEOS)


@command(
    app,
    examples=[
        ("av2tsam data synth my_data", "100 videos with one sound source"),
        ("av2tsam data synth my_data --subset ms3", "add videos with several"),
        ("av2tsam data synth timing --subset ms3 --off-grid", "changes at any time"),
    ],
)
def synth(
    out: Annotated[Path, Option("folder of the data set", metavar="OUT", positional=True)],
    *,
    options: SynthOptions,
    messages: Messages,
) -> int:
    """Generate short videos with synthesised sound and exact masks, in AVSBench's format."""
    from av2tsam_cli.synth.dataset import write_dataset

    console = Console(messages)
    with Stages(console, "videos") as stages:
        write_dataset(
            out,
            subset=options.subset,
            videos=options.total,
            seed=options.seed,
            off_grid=options.off_grid,
            split_sizes=options.split_sizes,
            overwrite=options.overwrite,
            workers=options.workers,
            progress=partial(stages.show, "videos"),
        )
    console.note(f"{out}: {options.total} videos of {options.subset}, seed {options.seed}")
    if messages.json:
        record = {"subset": options.subset, "videos": options.total, "seed": options.seed}
        print_json({"out": out, **record, "off_grid": options.off_grid})
    return 0


@command(
    app,
    examples=[
        ("av2tsam data check my_data", "check all files of a data set"),
        ("av2tsam data check avsbench --subset s4", "check one subset of AVSBench"),
    ],
)
def check(
    data: Annotated[
        str, Option("folder of a data set, or 'avsbench'", metavar="PATH", positional=True)
    ],
    *,
    subset: Annotated[
        Subset | None,
        Option("check only this subset", panel=Panel.DATA, default="all subsets in the folder"),
    ] = None,
    data_root: DataRoot = None,
    strict: Annotated[
        bool,
        Option(
            "also exit with 3 if raw_videos would be used in place of missing files, or if a "
            "split is empty",
            panel=Panel.DATA,
        ),
    ] = False,
    messages: Messages,
) -> int:
    """Count the videos of a data set in AVSBench's format and list missing and corrupted files.

    Videos that the CSV lists more than once are listed too, for example in two splits. The exit
    code is 3 if anything is listed.
    """
    from av2tsam_cli.data.avsbench import find_root, find_subsets

    root = find_root(data, data_root)
    subsets = (subset,) if subset else find_subsets(root)
    if not subsets:
        raise MediaError(
            f"{root}: contains no AVSBench subset ({', '.join(SUBSETS)}); use the folder that "
            "contains Single-source, Multi-sources or AVSBench_semantic"
        )
    console = Console(messages)
    codes = [_check(console, root, each, strict=strict, json=messages.json) for each in subsets]
    return max(codes)


def _check(console: Console, root: Path, subset: Subset, *, strict: bool, json: bool) -> int:
    """Check one subset, print the report, and return the exit code."""
    from av2tsam_cli.data.check import check_subset

    try:
        with Stages(console, "videos") as stages:
            report = check_subset(root, subset, partial(stages.show, f"videos of {subset}"))
    except MediaError as error:
        console.error(error)
        if json:
            print_json({"subset": subset, "root": root, "error": str(error)})
        return error.exit_code
    if json:
        print_json({"root": root, **report.to_json()})
    else:
        print_text(_table(report))
    for problem in report.problems[:PRINTED_PROBLEMS]:
        console.error(MediaError(problem.message))
    if (more := len(report.problems) - PRINTED_PROBLEMS) > 0:
        console.note(f"{subset}: and {more} more files; use `json` to list all of them")
    if strict:
        try:
            report.check_strictly()
        except MediaError as error:
            console.error(error)
            return error.exit_code
    return MediaError.exit_code if report.problems else 0


def _table(report: "SubsetReport") -> str:
    """Format the number of videos by split and category as text."""
    counts = {split: report.categories(split) for split in SPLITS}
    categories = sorted(set().union(*counts.values()))
    rows: list[tuple[object, ...]] = [
        (report.subset, *SPLITS),
        *((escape(name), *(counts[split].get(name, 0) for split in SPLITS)) for name in categories),
        ("videos", *map(report.videos, SPLITS)),
        ("labelled frames", *map(report.labelled_frames, SPLITS)),
    ]
    width = max(len(str(row[0])) for row in rows)
    lines = [f"{name:<{width}}" + "".join(f"{c:>9}" for c in cells) for name, *cells in rows]
    lines += [escape(warning) for warning in report.checked.warnings]
    lines += [f"no videos in the split {split}" for split in report.empty_splits]
    files = len(report.checked.problems)
    lines.append(
        f"{_count(files, 'missing or corrupted file')} in {_count(report.damaged_videos, 'video')}"
        if files
        else "all files are intact"
    )
    return "\n".join(lines) + "\n\n"


def _count(number: int, noun: str) -> str:
    """Return a number with a noun in the singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
