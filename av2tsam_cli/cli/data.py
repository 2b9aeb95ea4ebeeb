"""`av2tsam data`: make data sets of audio-visual scenes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from av2tsam_cli.cli.console import Console, print_json
from av2tsam_cli.cli.options import Parser, add_talk_options, natural_number, whole_number

DESCRIPTION = """\
  synth OUT     make short videos with synthesised sound and exact masks, in AVSBench's layout

The same options and seed make the same data set.
"""


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = Parser("av2tsam data", description=DESCRIPTION)
    parser.add_argument("action", choices=("synth",))
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make it in")
    group = parser.add_argument_group("data set")
    group.add_argument(
        "--subset",
        choices=("s4", "ms3"),
        default="s4",
        help="one sounding object, or several that take turns and overlap (default: s4)",
    )
    group.add_argument(
        "--videos", type=whole_number, default=100, metavar="N", help="how many (default: 100)"
    )
    group.add_argument(
        "--seed", type=natural_number, default=0, metavar="S", help="of the scenes (default: 0)"
    )
    group.add_argument(
        "--split-sizes",
        type=_split_sizes,
        metavar="TRAIN,VAL,TEST",
        help="videos in each split (default: 70, 15 and 15 %% of --videos)",
    )
    group.add_argument("--overwrite", action="store_true", help="replace a data set that exists")
    group.add_argument(
        "--workers", type=whole_number, metavar="N", help="processes (default: one per core)"
    )
    add_talk_options(parser)
    return _synth(parser.parse(argv))


def _synth(arguments: argparse.Namespace) -> int:
    from av2tsam_cli.synth.dataset import write_dataset

    console = Console(quiet=arguments.quiet, debug=arguments.debug)
    with console.progress("scenes", arguments.videos, unit="videos") as progress:
        write_dataset(
            arguments.out,
            subset=arguments.subset,
            videos=arguments.videos,
            seed=arguments.seed,
            split_sizes=arguments.split_sizes,
            overwrite=arguments.overwrite,
            workers=arguments.workers,
            progress=progress,
        )
    console.note(f"{arguments.out}: {arguments.videos} videos ({arguments.subset})")
    if arguments.json:
        print_json({"out": arguments.out, "subset": arguments.subset, "videos": arguments.videos})
    return 0


def _split_sizes(text: str) -> tuple[int, int, int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text}: give three whole numbers, such as 70,15,15")
    train, val, test = (int(part) for part in parts)
    return train, val, test
