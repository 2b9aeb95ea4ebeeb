"""Signals that interrupt a process, and signals of crashes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from av2tsam_cli.errors import Av2tsamError, MediaError

INTERRUPTIONS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that interrupt a command, from Ctrl-C, `kill` and a closed terminal."""
CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"})
"""Signals of the system or the C library that end a process after an error in its code."""


@contextmanager
def handle_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each signal that arrives while the block runs.

    Ignored signals stay ignored, as under nohup. Only the main thread can handle signals; this does
    nothing on other threads.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    # None means that a handler was not set from Python and cannot be restored.
    previous = {n: h for n, h in handlers.items() if h not in {None, signal.SIG_IGN}}

    def call(number: int, _frame: FrameType | None) -> None:
        handler(number)

    try:
        for number in previous:
            signal.signal(number, call)
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@contextmanager
def recorded_signals() -> Iterator[list[int]]:
    """Yield a list of the signals that arrive while the block runs; they are handled as before.

    A library can drop the exception that a handler raises, for example in a destructor.
    """
    handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    received: list[int] = []

    def record(number: int) -> None:
        received.append(number)
        handler = handlers[number]
        if not callable(handler):  # the default, which would end the process
            raise KeyboardInterrupt
        handler(number, None)

    with handle_signals(record):
        yield received


def explain_death(source: Path, by: signal.Signals) -> Av2tsamError:
    """Return the error for an input whose process was ended by a signal."""
    if by.name in CRASHES:
        return MediaError(
            f"{source}: crashed a decoder or encoder ({by.name}), so it is probably damaged; copy "
            "it again, or re-encode it"
        )
    return Av2tsamError(
        f"{source}: the process was killed ({by.name}) while working on it, perhaps because memory "
        "ran out; free memory, or use a smaller `batch_size`"
    )
