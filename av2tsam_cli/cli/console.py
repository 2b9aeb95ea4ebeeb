"""Everything that is printed: results on stdout; notes, errors and progress on stderr."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
import time
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.errors import Av2tsamError, UsageError

if TYPE_CHECKING:  # not needed for 'av2tsam --help', which should be fast
    from av2tsam_cli.cli.log_file import Kind, LogFile
    from av2tsam_cli.cli.progress import BatchProgress, Progress, Unit
    from av2tsam_cli.options import Messages

READER_ENDED = 141
"""Exit code if the reader of stdout has ended, as of a process ended by SIGPIPE in a shell."""

HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control and invisible characters, surrogates and line separators."""
JOINERS = "\u200c\u200d"
"""Invisible characters that some scripts and emoji need."""

LINE_EVERY_S = 30.0
"""Seconds between two lines of progress if stderr is not a terminal."""
JSON_EVERY_S = 0.5
"""Minimum seconds between two objects of `--progress json`, except the first and the last."""

_flags: dict[str, str] = {}
"""The flags of the running command by their Python names, such as {"end": "--end"}."""
_logs: list[LogFile] = []
"""The running command's log file, if it has one."""


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
    """Set the flags of the running command, which messages show instead of Python names."""
    _flags.clear()
    _flags.update(flags)


def with_flags(text: str) -> str:
    """Replace arguments in backticks with the flags of the running command."""
    for name, flag in _flags.items():
        text = text.replace(f"`{name}`", flag)
    return text


def open_log(path: Path) -> None:
    """Also write to a file what the running command prints on stderr, with more details.

    Raises:
        UsageError: The file cannot be written, or is not a log.
    """
    from av2tsam_cli.cli.log_file import LogFile

    close_log()
    _logs.append(LogFile(path))


def close_log() -> None:
    """Close the log file if there is one."""
    while _logs:
        _logs.pop().close()


def log_record(kind: Kind, text: str) -> None:
    """Append a record to the log file if there is one."""
    for log in _logs:
        log.write(kind, escape(text, keep="\n"))


def escape(text: str, *, keep: str = "") -> str:
    r"""Escape characters that can control a terminal, such as `\x1b` for the escape character.

    Names of files, and text in files, may contain sequences that clear the screen, line breaks that
    imitate another message, or marks that reverse the order of letters.

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

    If stdout is a terminal, control characters other than line breaks and tabs are escaped. If it
    is a file or a pipe, only characters that its encoding does not have are escaped.

    Raises:
        StdoutError: stdout cannot be written.
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
    print_text(json.dumps(record, default=str) + "\n")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout: formatted on a terminal, otherwise as plain columns."""
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
    text = explain(error)
    if debug or _logs:
        import traceback

        trace = "".join(traceback.format_exception(error)).rstrip("\n")
        log_record("trace", trace)
        for line in trace.split("\n") if debug else ():
            _print_line(line)
    log_record("error", _one_line(text))
    _print_line(f"av2tsam: error: {text}")


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
    """The notes, errors and progress of a running command, on stderr."""

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self.quiet = messages.quiet
        self.debug = messages.debug
        self._next_line_s = time.monotonic() + LINE_EVERY_S

    @property
    def wants_details(self) -> bool:
        """Whether details are printed or logged."""
        return self.messages.verbose or bool(_logs)

    def note(self, text: str) -> None:
        """Print a line of information, unless `quiet` is set."""
        text = with_flags(text)
        log_record("note", _one_line(text))
        if not self.quiet:
            _print_line(f"av2tsam: {text}")

    def detail(self, text: str) -> None:
        """Print a line of information if `verbose` is set."""
        text = with_flags(text)
        log_record("detail", _one_line(text))
        if self.messages.verbose:
            _print_line(f"av2tsam: {text}")

    def row(self, cells: Sequence[str], width: int) -> None:
        """Print a table row with columns of equal width, unless `quiet` is set."""
        if not self.quiet:
            _print_line("".join(cell.rjust(width) for cell in cells))

    def error(self, error: BaseException) -> None:
        """Print an error in one line."""
        print_error(error, debug=self.debug)

    @contextlib.contextmanager
    def logged(self) -> Generator[None, None, None]:
        """While the block runs, print warnings of the library as notes, and its details.

        Warnings of other packages, such as those of object stores, are details.
        """
        import logging

        def emit(record: logging.LogRecord) -> None:
            text = record.getMessage()
            if not record.name.startswith("av2tsam_cli"):
                self.detail(f"{record.name}: {text}")
            elif record.levelno >= logging.WARNING:
                self.note(text)
            else:
                self.detail(text)

        log, handler = logging.getLogger("av2tsam_cli"), logging.Handler(logging.INFO)
        handler.emit = emit  # type: ignore[method-assign]
        everyone = logging.getLogger()
        everyone.addHandler(handler)
        level = log.level
        if self.wants_details:
            log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.setLevel(level)
            everyone.removeHandler(handler)

    @contextlib.contextmanager
    def progress(
        self,
        name: str | Path,
        total: int | None,
        unit: Unit = "frames",
        batch: BatchProgress | None = None,
    ) -> Generator[Callable[[int], None] | None, None, None]:
        """Show the progress of an input or a stage while the block runs.

        By default, this is a bar on a terminal, and an occasional line otherwise.

        Args:
            name: An input, or the name of a stage.
            total: The expected number of units; None if unknown.
            unit: What is counted.
            batch: The batch that the input belongs to.

        Yields:
            A function that takes the number of units done so far; None if nothing is shown.
        """
        from av2tsam_cli.cli.progress import Progress

        progress = Progress(name, total, unit, batch)
        if batch is not None and isinstance(name, Path):
            batch.start(name)
        try:
            with self._shown(progress) as update:
                yield update
        finally:
            if batch is not None:
                batch.finish(progress.done)

    @contextlib.contextmanager
    def _shown(self, progress: Progress) -> Generator[Callable[[int], None] | None, None, None]:
        style = self.messages.progress_style
        if style == "none":
            yield None
        elif style == "json":
            with _json_progress(progress) as update:
                yield update
        elif style == "bar" and sys.stderr.isatty():
            from av2tsam_cli.cli.bar import show_bar

            with show_bar(progress):
                yield progress.update
        else:
            yield lambda done: self._update_with_lines(progress, done)

    def _update_with_lines(self, progress: Progress, done: int) -> None:
        progress.update(done)
        if (now_s := time.monotonic()) >= self._next_line_s:
            self._next_line_s = now_s + LINE_EVERY_S
            _print_line(f"av2tsam: {progress.describe()}")

    def remove_bar(self) -> None:
        """Remove the progress bar of a crashed process, and show the cursor."""
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
        """Show the progress of a stage; a new stage replaces the bar of the previous one."""
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


@contextlib.contextmanager
def _json_progress(progress: Progress) -> Generator[Callable[[int], None], None, None]:
    """Print progress as JSON: at the start, at most every `JSON_EVERY_S`, and at the end."""
    next_s = 0.0

    def show() -> None:
        _print_line(json.dumps(progress.to_json()))

    def update(done: int) -> None:
        nonlocal next_s
        progress.update(done)
        if (now_s := time.monotonic()) >= next_s:
            next_s = now_s + JSON_EVERY_S
            show()

    update(0)
    yield update
    show()


def _one_line(text: str) -> str:
    """Escape line breaks, as `_print_line` does."""
    return text.replace("\n", "\\n")


def _print_line(text: str) -> None:
    with contextlib.suppress(OSError):  # it cannot be reported anywhere else
        sys.stderr.write(escape(text) + "\n")
        sys.stderr.flush()
