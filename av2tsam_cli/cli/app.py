"""The entry point of the command line: runs a command and turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from av2tsam_cli import __version__
from av2tsam_cli.cli.console import (
    READER_ENDED,
    StdoutError,
    close_log,
    exit_code_of,
    log_record,
    name_flags,
    print_error,
    print_text,
)
from av2tsam_cli.errors import Interrupted, UsageError
from av2tsam_cli.signals import handle_signals

if TYPE_CHECKING:
    from av2tsam_cli.options import OptionField

COMMANDS = {
    "segment": "highlight the sound source in videos, or write masks of it",
    "listen": "list what is heard in videos and audio files, and when",
    "train": "train a model on AVSBench or on data with the same layout",
    "evaluate": "score a model on AVSBench, optionally with unrelated audio",
    "runs": "compare trainings: mean and standard deviation over seeds",
    "data": "create and check data sets",
    "models": "download, convert, verify, list and remove models",
    "vocabulary": "show and check lists of things that can be heard and seen",
    "config": "show the options of a command, and where each is set",
    "completion": "print a script that completes commands and options in a shell",
    "doctor": "check this installation and show versions, devices and codecs",
}
"""The commands with their summaries. Each is a module of this package with a Typer `app`.

The top-level help is made from this table, because importing Typer takes 0.2 s.
"""

_HELP = """\
Examples:
  av2tsam segment video.mp4 -o overlay.mp4     # highlight the sound source
  av2tsam segment video.mp4 -o masks -f masks  # write a mask PNG per frame
  av2tsam models list                          # list the available models

Usage: av2tsam COMMAND ...

Find and cut out what is making the sound in a video.

Commands:
{commands}

Options:
  --version     print the version
  -h, --help    print this help, or the help of a command

Exit codes:
  0 done, 1 failed, 2 usage error or missing input, 3 unreadable media or data,
  4 model weights missing or corrupted, 130 interrupted,
  141 the reader of stdout ended first, as in 'av2tsam ... | head -1'
"""


def run_command(argv: Sequence[str]) -> int:
    """Run a command and return its exit code; errors are printed instead of raised."""
    debug = "--debug" in argv
    name_flags({})
    code = _run_reporting(list(argv), debug=debug)
    log_record("end", f"exit code {code}")
    close_log()
    return code


def _run_reporting(argv: list[str], *, debug: bool) -> int:
    """Run a command and return its exit code; print errors."""
    with handle_signals(_InterruptOnce()):  # also while an interruption is reported
        try:
            return _dispatch(argv)
        except KeyboardInterrupt:
            print_error(Interrupted("interrupted; unfinished outputs were removed"), debug=debug)
            return Interrupted.exit_code
        except StdoutError as error:
            return _end_without_stdout(error, debug=debug)
        except Exception as error:  # noqa: BLE001 - users get one line instead of a traceback
            print_error(error, debug=debug)
            return exit_code_of(error)


def _end_without_stdout(error: StdoutError, *, debug: bool) -> int:
    """Report that stdout cannot be written, unless its reader has ended; return the exit code."""
    if error.exit_code != READER_ENDED:
        print_error(error, debug=debug)
    # At exit, Python flushes the buffer, and would report the error again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error.exit_code


class _InterruptOnce:
    """Raises KeyboardInterrupt at the first signal; later ones must not interrupt the cleanup."""

    interrupted = False

    def __call__(self, _number: int) -> None:
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt


def _dispatch(argv: list[str]) -> int:
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        return _run(name, argv[1:])
    if name in {"-h", "--help", "--help-all"}:
        rows = (f"  {command:<10}  {summary}" for command, summary in COMMANDS.items())
        print_text(_HELP.format(commands="\n".join(rows)))
        return 0
    if name == "--version":
        print_text(f"av2tsam {__version__}\n")
        return 0
    raise UsageError(_unknown(name))


def _unknown(word: str) -> str:
    """Return the error message for a first word that is not a command."""
    from shlex import quote

    from av2tsam_cli.network import is_url
    from av2tsam_cli.options import unknown

    if is_url(word):
        return f"unknown command {word!r}; did you mean: av2tsam segment {quote(word)}?"
    kind = "option" if word.startswith("-") else "command"
    advice = "see 'av2tsam --help'"
    if kind == "command" and any(mark in word for mark in "./\\*?"):  # a file or a pattern
        advice = f"did you mean: av2tsam segment {quote(word)}?"
    return unknown(kind, word, [*COMMANDS, "--help", "--version"], otherwise=advice)


def command_options() -> dict[str, tuple[OptionField, ...]]:
    """Return all commands, such as `segment` and `data synth`, with their options."""
    found = {}
    for name in COMMANDS:
        app = importlib.import_module(f"av2tsam_cli.cli.{name}").app
        for each in app.registered_commands:
            word = each.name or each.callback.__name__
            path = f"{name} {word}" if app.registered_callback else name
            found[path] = each.callback.page.options
    return found


def _run(name: str, argv: list[str]) -> int:
    """Run one command, importing only its module."""
    module = importlib.import_module(f"av2tsam_cli.cli.{name}")
    code = module.app(argv, prog_name=f"av2tsam {name}", standalone_mode=False)
    if code == Interrupted.exit_code:  # Typer returns this for a KeyboardInterrupt
        raise KeyboardInterrupt
    return int(code or 0)
