"""The progress bar."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

REFRESHES_HZ = 4
"""Redraws per second; more would take CPU time from the network."""


class SpeedColumn(ProgressColumn):
    """The speed, such as `12.5 frames/s`."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Return the recent speed, or dashes before there is one."""
        speed = task.finished_speed or task.speed
        return Text(f"{'--' if speed is None else format(speed, '.1f')} {self.unit}/s")


@contextmanager
def progress_bar(
    name: str, total: int | None, unit: str
) -> Generator[Callable[[int], None], None, None]:
    """Show a bar on stderr while the block runs.

    Args:
        name: What is in progress.
        total: The expected number of units; None if it is unknown.
        unit: `frames`, `videos`, `seconds` or `bytes`.

    Yields:
        A function that takes the number done so far.
    """
    in_bytes = unit == "bytes"
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TransferSpeedColumn() if in_bytes else SpeedColumn(unit),
        TimeRemainingColumn(),
    )
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, refresh_per_second=REFRESHES_HZ, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.update(task, completed=count)
