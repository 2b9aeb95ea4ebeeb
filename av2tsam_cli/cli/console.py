"""The only module that prints: results to stdout, everything for people to stderr."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence

from av2tsam_cli.errors import Av2tsamError

TYPE_CHECKING = False  # as in the package's __init__
if TYPE_CHECKING:
    from typing import Literal

_flags: dict[str, str] = {}


def name_flags(flags: Mapping[str, str]) -> None:
    """Set how messages show the running command's options: `--end` for `end`, for example."""
    _flags.clear()
    _flags.update(flags)


def with_flags(text: str) -> str:
    """Replace the arguments that a message names in backticks with the command's flags."""
    for name, flag in _flags.items():
        text = text.replace(f"`{name}`", flag)
    return text


def is_url(word: str) -> bool:
    """Whether a word is a URL."""
    return "://" in word


def print_text(text: str) -> None:
    """Write a command's result for people, such as its help, to stdout."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_json(record: Mapping[str, object]) -> None:
    """Write one result for programs: one line of JSON on stdout."""
    import json

    print_text(json.dumps(record, default=str) + "\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout: drawn on a terminal, in plain columns where a program reads it."""
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        for row in (head, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print_text("  ".join(cells).rstrip() + "\n")
        return
    from rich.console import Console as Screen
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Screen().print(table)


def print_error(error: BaseException, *, debug: bool = False) -> None:
    """Write one line that says what went wrong to stderr, under its traceback where asked."""
    if debug:
        traceback.print_exception(error)
    _say(f"av2tsam: error: {explain(error)}")


def explain(error: BaseException) -> str:
    """One sentence of what went wrong, where, and what to do."""
    if isinstance(error, Av2tsamError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = f"{error.filename or 'output'}: no space left on the disk; free some, run again"
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = "out of memory; use a smaller `batch_size`, or the CPU as `device`"
    elif isinstance(error, ImportError):
        text = _explain_import(error)
    else:
        text = f"unexpected {type(error).__name__}: {error}; --debug shows where"
    return with_flags(" ".join(text.split()))


def _explain_import(error: ImportError) -> str:
    from av2tsam_cli.cli.system_libraries import explain_missing_library

    missing = explain_missing_library(error)
    return missing or f"{error}; the installation is incomplete, see: av2tsam doctor"


class Console:
    """What a running command says to people, on stderr."""

    def __init__(self, *, quiet: bool, debug: bool) -> None:
        self.quiet = quiet
        self.debug = debug

    def note(self, text: str) -> None:
        """Say something worth knowing, in one line, unless told to be quiet."""
        if not self.quiet:
            _say(f"av2tsam: {with_flags(text)}")

    def row(self, cells: Sequence[str], width: int) -> None:
        """Add a line to a table that grows, in columns of one width, unless told to be quiet."""
        if not self.quiet:
            _say("".join(cell.rjust(width) for cell in cells))

    def error(self, error: BaseException) -> None:
        """Say what went wrong, in one line."""
        print_error(error, debug=self.debug)

    @contextlib.contextmanager
    def logged(self) -> Generator[None, None, None]:
        """Pass on as notes what the stages warn about while the block runs."""
        log, handler = logging.getLogger("av2tsam_cli"), _Notes(self)
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)

    @contextlib.contextmanager
    def progress(
        self, name: str, total: int | None, unit: Literal["frames", "videos", "bytes"] = "frames"
    ) -> Generator[Callable[[int], None] | None, None, None]:
        """Show a bar with how much is done, how fast, and the time left while the block runs.

        Yields:
            What to call with the number done; None where there is nobody to see a bar.
        """
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from av2tsam_cli.cli.bar import counting_bar

        with counting_bar(name, total, unit) as update:
            yield update


class Stages(contextlib.ExitStack):
    """A bar for what is under way; that of the next stage takes the place of the last."""

    def __init__(self, console: Console, unit: Literal["frames", "videos", "bytes"]) -> None:
        super().__init__()
        self.console = console
        self.unit = unit
        self.under_way = ""
        self.update: Callable[[int], None] | None = None

    def show(self, name: str, done: int, total: int) -> None:
        """Say that so many of so many are done in a stage."""
        if name != self.under_way:
            self.close()
            self.under_way = name
            self.update = self.enter_context(self.console.progress(name, total, self.unit))
        if self.update is not None:
            self.update(done)

    def close(self) -> None:
        """Take the bar away."""
        super().close()
        self.under_way, self.update = "", None


class _Notes(logging.Handler):
    """Turns warnings into notes."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Say it in one line."""
        self.console.note(record.getMessage())


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
