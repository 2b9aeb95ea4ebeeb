"""`av2tsam runs`: compare trainings."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from av2tsam_cli.cli.console import Console, print_json, print_text
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.options import Messages, Option, Panel

app = new_app("Compare trainings.")


@command(
    app,
    examples=[
        ("av2tsam runs compare runs/mul runs/clap", "each from train --seeds 1,2,3"),
        ("av2tsam runs compare runs/*/ --format latex", "a table for a paper"),
    ],
)
def compare(
    runs: Annotated[
        list[str],
        Option("run folders, or folders with a run per seed", metavar="RUN", positional=True),
    ],
    *,
    format: Annotated[  # noqa: A002 - named after its option
        Literal["markdown", "latex"],
        Option("format of the table; LaTeX needs the package booktabs", panel=Panel.OUTPUT),
    ] = "markdown",
    messages: Messages,
) -> int:
    """Compare trainings by mean and standard deviation over seeds.

    Runs whose options differ only in the seed are one group, and so are the runs in a folder that
    train --seeds made. A row of the table shows the options in which a group differs from the
    others, and the scores of the best epochs on the validation split and, if the runs have them, on
    the test split.
    """
    from av2tsam_cli.training.compare import compare_runs, latex, markdown

    console = Console(messages)
    with console.logged():
        groups = compare_runs([Path(run) for run in runs])
    if messages.json:
        print_json({"groups": [asdict(group) for group in groups]})
    else:
        print_text(markdown(groups) if format == "markdown" else latex(groups))
    return 0
