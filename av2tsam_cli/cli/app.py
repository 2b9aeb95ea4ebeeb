"""From words to a command, and from what goes wrong in it to one line and an exit code."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from difflib import get_close_matches
from types import FrameType

from av2tsam_cli import __version__
from av2tsam_cli.cli.console import print_error, print_text
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError

COMMANDS = {
    "segment": "highlight what sounds in a video, or what a phrase names, or write masks of it",
    "train": "train a model on AVSBench, or on data in its layout",
    "evaluate": "score a model on AVSBench, also with sounds that are not in the picture",
    "data": "make data sets of audio-visual scenes, and check data sets",
    "models": "fetch, convert, check, show and remove models",
    "doctor": "show versions, devices, codecs and models of this installation",
}
"""A module of this package each, with a Typer `app` that returns the exit code.

This table is also the top-level help, which so needs not import Typer: that takes 0.2 s, and with
rich's help 0.6 s.
"""

_HELP = """\
usage: av2tsam COMMAND ...

Find and cut out what in a video is making the sound.

commands:
{commands}

options:
  -h, --help     show this text, or after a command its own
  --version      show the version

example: av2tsam segment video.mp4 --out overlay.mp4

exit codes: 0 done, 1 failed, 2 usage, 3 unreadable media or data, 4 weights missing or damaged,
130 interrupted
"""


def run_command(argv: Sequence[str]) -> int:
    """Run the command that the words name and return its exit code; nothing is raised."""
    debug = "--debug" in argv
    try:
        with _signals_interrupt():
            return _dispatch(list(argv))
    except KeyboardInterrupt:
        print_error(Interrupted("interrupted; unfinished outputs were removed"), debug=debug)
        return Interrupted.exit_code
    except BrokenPipeError:  # the reader has gone, as in `av2tsam ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Av2tsamError as error:
        print_error(error, debug=debug)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        print_error(error, debug=debug)
        return 1


def _dispatch(argv: list[str]) -> int:
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        return _run(name, argv[1:])
    if name in {"-h", "--help"}:
        print_text(_help())
        return 0
    if name == "--version":
        print_text(f"av2tsam {__version__}\n")
        return 0
    what = "option" if name.startswith("-") else "command"
    near = get_close_matches(name, [*COMMANDS, "--help", "--version"], n=1)
    hint = f"did you mean {near[0]}?" if near else "see: av2tsam --help"
    raise UsageError(f"unknown {what} {name}; {hint}")


def _run(name: str, argv: list[str]) -> int:
    """Run one command, the only one whose module is imported."""
    import typer

    command = f"av2tsam {name}"
    module = importlib.import_module(f"av2tsam_cli.cli.{name}")
    try:
        code = module.app(argv, prog_name=command, standalone_mode=False)
    except typer.TyperException as error:
        raise UsageError(f"{error.format_message().rstrip('.')}; see: {command} --help") from error
    if code == Interrupted.exit_code:  # what Typer makes of KeyboardInterrupt
        raise KeyboardInterrupt
    return int(code or 0)


def _help() -> str:
    rows = (f"  {name:<14} {summary}" for name, summary in COMMANDS.items())
    return _HELP.format(commands="\n".join(rows))


@contextlib.contextmanager
def _signals_interrupt() -> Generator[None, None, None]:
    """Let SIGTERM and SIGHUP tidy up as Ctrl-C does, and let a second one not stop the tidying."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    # Ignored ones stay so, as under nohup; None is a handler that is not Python's.
    before = {n: h for n, h in handlers.items() if h not in {None, signal.SIG_IGN}}

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
