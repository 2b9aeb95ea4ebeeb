"""The progress bar."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from av2tsam_cli.cli.console import escape
from av2tsam_cli.cli.progress import Progress

REFRESHES_HZ = 4
"""Redraws per second; more would take CPU time from the network."""


class Bar:
    """A line with a progress bar, as wide as the terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        name = progress.name
        self.name = escape(name.name if isinstance(name, Path) else name)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Return the line, with the bar in colour."""
        line = Text(
            self.progress.line(options.max_width - 1, self.name), no_wrap=True, overflow="crop"
        )
        line.highlight_regex("━+", "magenta")
        line.highlight_regex("─+", "bright_black")
        yield line


@contextmanager
def show_bar(progress: Progress) -> Generator[None, None, None]:
    """Show a bar on stderr while the block runs."""
    screen = Console(stderr=True)
    with Live(Bar(progress), console=screen, refresh_per_second=REFRESHES_HZ, transient=True):
        yield
