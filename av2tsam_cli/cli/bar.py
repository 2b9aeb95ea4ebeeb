"""The progress bar."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

REFRESHES_HZ = 4
"""Redraws per second; more only takes time from the network."""


class FramesPerSecond(ProgressColumn):
    """How fast it goes."""

    def render(self, task: Task) -> Text:
        """The speed of late, or a dash at the beginning."""
        speed = task.finished_speed or task.speed
        return Text("-- frames/s" if speed is None else f"{speed:.1f} frames/s")


@contextmanager
def frames_bar(name: str, total: int | None) -> Generator[Callable[[int], None], None, None]:
    """Show a bar on stderr while the block runs.

    Args:
        name: What is worked on.
        total: Frames that are expected; None where nobody knows.

    Yields:
        What to call with the number of frames done.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        FramesPerSecond(),
        TimeRemainingColumn(),
    )
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, refresh_per_second=REFRESHES_HZ, transient=True) as bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.update(task, completed=done)
