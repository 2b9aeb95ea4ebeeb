"""Everything that is printed: results on stdout; notes, errors and progress on stderr."""

from __future__ import annotations

import contextlib
import errno
import sys
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Literal

from av2tsam_cli.errors import Av2tsamError, UsageError

READER_ENDED = 141
"""Exit code if the reader of stdout has ended: that of a process that SIGPIPE ends in a shell."""

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, invisible ones, surrogates and line separators."""
JOINERS = "\u200c\u200d"
"""Invisible characters that some scripts and emoji need."""

Unit = Literal["frames", "videos", "seconds", "bytes"]

_flags: dict[str, str] = {}
"""The running command's options by their Python names, such as {"end": "--end"}."""


class StdoutError(Av2tsamError):
    """A result cannot be written to stdout, so the command ends."""

    def __init__(self, error: OSError) -> None:
        super().__init__(
            f"stdout: cannot be written ({error.strerror}); send the output to a file or program "
            "that accepts it"
        )
        if isinstance(error, BrokenPipeError):
            self.exit_code = READER_ENDED


def name_flags(flags: Mapping[str, str]) -> None:
    """Set the options of the running command, which messages show as flags."""
    _flags.clear()
    _flags.update(flags)


def with_flags(text: str) -> str:
    """Replace arguments in backticks with the flags of the running command."""
    for name, flag in _flags.items():
        text = text.replace(f"`{name}`", flag)
    return text


def escape(text: str, *, keep: str = "") -> str:
    r"""Return a text that cannot control a terminal: `\x1b` in place of the escape character.

    Names of files and names in files may contain anything, such as sequences that clear the screen,
    line breaks that imitate another message, or marks that reverse the order of letters.

    Args:
        text: The text.
        keep: Characters that are not escaped.
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in HIDDEN_CATEGORIES and char not in JOINERS + keep
        else char
        for char in text
    )


def print_text(text: str) -> None:
    """Write a result for people, such as a help page, to stdout.

    It is written as it is to a file or a program, and escaped to a terminal, except line breaks.
    Characters that the encoding of stdout does not have are always escaped.

    Raises:
        StdoutError: It cannot be written.
    """
    if sys.stdout.isatty():
        text = escape(text, keep="\n\t")
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise StdoutError(error) from error


def print_json(record: Mapping[str, object]) -> None:
    """Write a result for programs to stdout, as one line of JSON."""
    import json

    print_text(json.dumps(record, default=str) + "\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout: formatted on a terminal, in plain columns otherwise."""
    rows = [[escape(cell) for cell in row] for row in rows]
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
    """Write an error to stderr in one line, after its traceback if `debug` is set."""
    if debug:
        import traceback

        for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
            _print_line(line)
    _print_line(f"av2tsam: error: {explain(error)}")


def explain(error: BaseException) -> str:
    """Return one line that describes an error and how to fix it."""
    if isinstance(error, Av2tsamError):
        text = str(error)
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = f"{error.filename or 'output'}: no space left on the disk; free some and try again"
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        text = f"{error.filename or 'output'}: {error.strerror}; use a shorter name"
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = "out of memory; use a smaller `batch_size`, or run on the CPU"
    elif isinstance(error, ImportError):
        text = _explain_import(error)
    else:
        reason = " ".join(str(error).split())
        text = f"unexpected {type(error).__name__}: {reason}; use --debug for a traceback"
    return with_flags(text)


def _explain_import(error: ImportError) -> str:
    from av2tsam_cli.cli.system_libraries import explain_missing_library

    missing = explain_missing_library(error)
    return (
        missing
        or f"{' '.join(str(error).split())}; the installation is incomplete, run 'av2tsam doctor'"
    )


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of an error."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return UsageError.exit_code
    return error.exit_code if isinstance(error, Av2tsamError) else Av2tsamError.exit_code


class Console:
    """The notes, errors and progress bars of a running command, on stderr."""

    def __init__(self, *, quiet: bool, debug: bool) -> None:
        self.quiet = quiet
        self.debug = debug

    def note(self, text: str) -> None:
        """Print a line of information, unless `quiet` is set."""
        if not self.quiet:
            _print_line(f"av2tsam: {with_flags(text)}")

    def row(self, cells: Sequence[str], width: int) -> None:
        """Print a table row with columns of one width, unless `quiet` is set."""
        if not self.quiet:
            _print_line("".join(cell.rjust(width) for cell in cells))

    def error(self, error: BaseException) -> None:
        """Print an error in one line."""
        print_error(error, debug=self.debug)

    @contextlib.contextmanager
    def logged(self) -> Generator[None, None, None]:
        """Print the library's warnings as notes while the block runs."""
        import logging

        log, handler = logging.getLogger("av2tsam_cli"), logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.note(record.getMessage())  # type: ignore[method-assign]
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)

    @contextlib.contextmanager
    def progress(
        self, name: str, total: int | None, unit: Unit = "frames"
    ) -> Generator[Callable[[int], None] | None, None, None]:
        """Show a progress bar with speed and remaining time while the block runs.

        Yields:
            A function that takes the number done so far; None if no bar is shown, because `quiet`
            is set or stderr is not a terminal.
        """
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from av2tsam_cli.cli.bar import progress_bar

        with progress_bar(escape(name), total, unit) as update:
            yield update

    def remove_bar(self) -> None:
        """Remove a progress bar that a crashed process left, and show the cursor."""
        if sys.stderr.isatty():
            with contextlib.suppress(OSError):
                sys.stderr.write("\r\x1b[K\x1b[?25h")
                sys.stderr.flush()


class Stages(contextlib.ExitStack):
    """A progress bar for work in stages, one after the other."""

    def __init__(self, console: Console, unit: Unit) -> None:
        super().__init__()
        self.console = console
        self.unit = unit
        self.stage = ""
        self.update: Callable[[int], None] | None = None

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how much of a stage is done; a new stage replaces the bar of the previous one."""
        if stage != self.stage:
            self.close()
            self.stage = stage
            self.update = self.enter_context(self.console.progress(stage, total, self.unit))
        if self.update is not None:
            self.update(done)

    def close(self) -> None:
        """Remove the bar."""
        super().close()
        self.stage, self.update = "", None


def _print_line(text: str) -> None:
    with contextlib.suppress(OSError):  # there is no other place to report it
        sys.stderr.write(escape(text) + "\n")
        sys.stderr.flush()
