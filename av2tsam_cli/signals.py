"""Handling of the signals that end a process: SIGINT (Ctrl-C), SIGTERM and SIGHUP."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNAL_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def handle_signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler` with the number of each signal that arrives while the block runs.

    Ignored signals stay ignored, as under nohup. Outside the main thread, which alone can handle
    signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in SIGNAL_NAMES if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    # None is a handler that was not set from Python and cannot be restored.
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
