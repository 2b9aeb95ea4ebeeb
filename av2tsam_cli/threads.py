"""Run a stage ahead of the stage that consumes it, on a thread of its own, a bounded way."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

POLL_S = 0.05
"""Seconds after which a producer that waits for room looks whether anybody still listens."""
JOIN_S = 5.0
"""Seconds that a consumer which gives up waits for its producer to finish what it is doing."""


_running: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = (
    weakref.WeakKeyDictionary()
)
"""Threads of all stages, with what tells each to stop."""


@dataclass(frozen=True)
class _Item(Generic[T]):
    """One produced value."""

    value: T


@dataclass(frozen=True)
class _End:
    """The producer is done, or failed with `error`."""

    error: BaseException | None


def run_ahead(
    items: Generator[T, None, None], *, depth: int, name: str
) -> Generator[T, None, None]:
    """Yield what `items` yields while `items` runs on a thread, at most `depth` values ahead.

    An error in `items` is raised here, after the values before it. Closing this generator closes
    `items` on its own thread, so stages that are chained shut down from the last to the first.

    Args:
        items: The stage; it is only ever touched by the new thread.
        depth: Values that may wait in between; this bounds the memory.
        name: Name of the thread, for debuggers.
    """
    waiting: queue.Queue[_Item[T] | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, waiting, stopped), name=f"av2tsam-{name}", daemon=True
    )
    _running[thread] = stopped
    try:
        thread.start()
        while isinstance(got := waiting.get(), _Item):
            yield got.value
        if got.error is not None:
            raise got.error
    finally:
        stopped.set()
        if thread.ident is not None:  # it was started
            thread.join(JOIN_S)


def still_running() -> bool:
    """Whether a stage that was told to stop is still in the middle of a long step."""
    return any(thread.is_alive() for thread in list(_running))


@atexit.register
def _stop_all() -> None:
    """End what nobody closed: a thread that works on while Python shuts down may crash it."""
    begun = [(thread, stopped) for thread, stopped in _running.items() if thread.is_alive()]
    for _, stopped in begun:
        stopped.set()
    for thread, _ in begun:
        thread.join(JOIN_S)


def _produce(
    items: Generator[T, None, None],
    waiting: queue.Queue[_Item[T] | _End],
    stopped: threading.Event,
) -> None:
    error: BaseException | None = None
    try:
        with contextlib.closing(items):
            for value in items:
                if not _put(waiting, _Item(value), stopped):
                    break
    except BaseException as caught:  # noqa: BLE001 - whatever it is, the consumer raises it
        error = caught
    _put(waiting, _End(error), stopped)


def _put(
    waiting: queue.Queue[_Item[T] | _End], value: _Item[T] | _End, stopped: threading.Event
) -> bool:
    """Wait for room; False where nobody listens any more, however late that is noticed."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            waiting.put(value, timeout=POLL_S)
            return True
    return False
