"""Run a stage on a thread of its own, a bounded way: ahead of what consumes it, or behind."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")

POLL_S = 0.05
"""Seconds after which a producer that waits for room looks whether anybody still listens."""
JOIN_S = 5.0
"""Seconds that a consumer which gives up waits for its producer to finish what it is doing."""


_running: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = weakref.WeakKeyDictionary()
"""Threads of all stages, with what tells each to stop."""


@dataclass(frozen=True)
class _Item(Generic[T]):
    """One produced value."""

    value: T


@dataclass(frozen=True)
class _End:
    """The producer is done, or failed with `error`."""

    error: BaseException | None


_Waiting: TypeAlias = "queue.Queue[_Item[T] | _End]"


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
    waiting: _Waiting[T] = queue.Queue(maxsize=depth)
    stopped = threading.Event()
    thread = _thread(lambda: _produce(items, waiting, stopped), name, stopped)
    try:
        thread.start()
        yield from _taken(waiting)
    finally:
        stopped.set()
        if thread.ident is not None:  # it was started
            thread.join(JOIN_S)


class Abandoned(Exception):  # noqa: N818 - nothing went wrong in the stage that sees it
    """Raised in a stage that runs behind when not all of its values will come."""


@contextlib.contextmanager
def run_behind(
    stage: Callable[[Iterator[T]], None], *, depth: int, name: str
) -> Iterator[Callable[[T], None]]:
    """Give a function that hands a value to `stage`, which runs on a thread of its own.

    Leaving the block waits until the stage is done with all values. An error in the stage is raised
    by the next call, or when leaving. Where the block ends with an error, the stage's iterator
    raises `Abandoned`.

    Args:
        stage: Takes the values; it is called on the new thread.
        depth: Values that may wait in between; this bounds the memory.
        name: Name of the thread, for debuggers.
    """
    waiting: _Waiting[T] = queue.Queue(maxsize=depth)
    over, failed = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            stage(_taken(waiting))
        except Abandoned:
            pass
        except BaseException as caught:  # noqa: BLE001 - whatever it is, the other side raises it
            failed.append(caught)
        finally:
            over.set()

    def put(value: T) -> None:
        if not _put(waiting, _Item(value), over):
            raise failed[0] if failed else RuntimeError(f"{name}: ended before its values did")

    thread = _thread(work, name, over)
    thread.start()
    try:
        yield put
        _put(waiting, _End(None), over)
        thread.join()
    except BaseException:
        _abandon(waiting)
        thread.join(JOIN_S)
        raise
    if failed:
        raise failed[0]


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


def _thread(work: Callable[[], None], name: str, stopped: threading.Event) -> threading.Thread:
    """A thread that `_stop_all` knows of."""
    thread = threading.Thread(target=work, name=f"av2tsam-{name}", daemon=True)
    _running[thread] = stopped
    return thread


def _taken(waiting: _Waiting[T]) -> Generator[T, None, None]:
    """What is put there, until the end or an error is."""
    while isinstance(got := waiting.get(), _Item):
        yield got.value
    if got.error is not None:
        raise got.error


def _abandon(waiting: _Waiting[T]) -> None:
    """Have the one who takes values stop at once; called by the only one who puts them there."""
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()
    waiting.put_nowait(_End(Abandoned()))


def _produce(
    items: Generator[T, None, None],
    waiting: _Waiting[T],
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


def _put(waiting: _Waiting[T], value: _Item[T] | _End, stopped: threading.Event) -> bool:
    """Wait for room; False where nobody listens any more, however late that is noticed."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            waiting.put(value, timeout=POLL_S)
            return True
    return False
