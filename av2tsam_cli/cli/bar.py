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
"""Redraws per second; more only takes time from the network."""


class FramesPerSecond(ProgressColumn):
    """How fast it goes."""

    unit = "frames"

    def render(self, task: Task) -> Text:
        """The speed of late, or a dash at the beginning."""
        speed = task.finished_speed or task.speed
        return Text(f"{'--' if speed is None else format(speed, '.1f')} {self.unit}/s")


class VideosPerSecond(FramesPerSecond):
    """The same for whole videos."""

    unit = "videos"


COUNTS: dict[str, tuple[type[ProgressColumn], type[ProgressColumn]]] = {
    "frames": (MofNCompleteColumn, FramesPerSecond),
    "videos": (MofNCompleteColumn, VideosPerSecond),
    "bytes": (DownloadColumn, TransferSpeedColumn),
}
"""How much is done, and how fast it goes, by what is counted."""


@contextmanager
def counting_bar(
    name: str, total: int | None, unit: str
) -> Generator[Callable[[int], None], None, None]:
    """Show a bar on stderr while the block runs.

    Args:
        name: What is worked on.
        total: How many are expected; None where nobody knows.
        unit: What is counted, a key of `COUNTS`.

    Yields:
        What to call with the number done.
    """
    done, speed = COUNTS[unit]
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        done(),
        speed(),
        TimeRemainingColumn(),
    )
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, refresh_per_second=REFRESHES_HZ, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda count: bar.update(task, completed=count)
