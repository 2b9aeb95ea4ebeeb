"""Run a stage ahead of the stage that consumes it, on a thread of its own, a bounded way."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

JOIN_S = 5.0
"""Seconds that a consumer which gives up waits for its producer to finish what it is doing."""


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
    thread.start()
    try:
        while isinstance(got := waiting.get(), _Item):
            yield got.value
        if got.error is not None:
            raise got.error
    finally:
        stopped.set()
        _drain(waiting, thread)


def still_running() -> bool:
    """Whether a stage that was told to stop is still in the middle of a long step."""
    return any(thread.name.startswith("av2tsam-") for thread in threading.enumerate())


def _produce(
    items: Generator[T, None, None],
    waiting: queue.Queue[_Item[T] | _End],
    stopped: threading.Event,
) -> None:
    error: BaseException | None = None
    try:
        with contextlib.closing(items):
            for value in items:
                waiting.put(_Item(value))
                if stopped.is_set():
                    break
    except BaseException as caught:  # noqa: BLE001 - whatever it is, the consumer raises it
        error = caught
    waiting.put(_End(error))


def _drain(waiting: queue.Queue[_Item[T] | _End], thread: threading.Thread) -> None:
    """Make room until the producer has noticed that nobody listens any more."""
    deadline_s = time.monotonic() + JOIN_S
    while thread.is_alive() and time.monotonic() < deadline_s:
        with contextlib.suppress(queue.Empty):
            waiting.get(timeout=0.02)
