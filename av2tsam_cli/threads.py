"""Run a stage of a pipeline on its own thread, connected to the other stages by a queue.

A value can be a batch of large frames. So a stage waits for room before it makes a value, not when
it puts the value into the queue, and no value is kept longer than needed.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")

POLL_S = 0.05
"""Interval, while waiting for room, at which to check whether the other side has stopped."""
JOIN_S = 5.0
"""Seconds that a thread has to finish its current step after it was told to stop."""

_running: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = weakref.WeakKeyDictionary()
"""The threads of all stages, each with the event that tells it to stop."""


@dataclass(frozen=True)
class _Item(Generic[T]):
    """A value in a queue."""

    values: list[T]
    """The value; empty after it was taken."""


@dataclass(frozen=True)
class _End:
    """The end of the values in a queue."""

    error: BaseException | None
    """The error that ended them; None if there was none."""


_Queue: TypeAlias = "queue.Queue[_Item[T] | _End]"


def run_ahead(
    items: Generator[T, None, None],
    *,
    depth: int,
    name: str,
    context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Generator[T, None, None]:
    """Yield the values of a generator that runs on its own thread.

    An exception in `items` is raised here, after the values before it. Closing this generator
    closes `items` on its thread, so chained stages are closed from the last to the first.

    Args:
        items: The stage. Only the new thread uses it.
        depth: Limit of the values that are ready or being made, not counting the one yielded last.
        name: Name of the thread, for debuggers.
        context: Entered on the new thread and left when it ends, such as `torch_threads`.
    """
    values: _Queue[T] = queue.Queue()
    room, stop = threading.Semaphore(depth), threading.Event()
    thread = _create_thread(lambda: _produce(items, values, room, stop, context), name, stop)
    try:
        thread.start()
        yield from _take(values, room)
    finally:
        stop.set()
        if thread.ident is not None:  # the thread was started
            thread.join(JOIN_S)


class Abandoned(Exception):  # noqa: N818 - not an error of the stage in which it is raised
    """Raised in a stage of `run_behind` if its caller failed and no more values will come."""


@contextlib.contextmanager
def run_behind(
    stage: Callable[[Iterator[T]], None], *, depth: int, name: str
) -> Iterator[Callable[[T], None]]:
    """Run a stage on its own thread and return a function that passes it a value.

    At the end of the block, this waits until the stage has processed all values. An exception in
    the stage is raised by the next call of the function, or at the end of the block. If the block
    raises an exception, `Abandoned` is raised in the stage.

    Args:
        stage: Iterates over the values, on the new thread.
        depth: Limit of the values that wait for the stage. With 0, the function returns when the
            stage has finished with the previous value.
        name: Name of the thread, for debuggers.
    """
    values: _Queue[T] = queue.Queue()
    room = threading.Semaphore(depth)
    done, errors = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            stage(_take(values, room))
        except Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - raised on the other thread
            errors.append(error)
        finally:
            done.set()

    def put(value: T) -> None:
        if not _wait(room, done):
            raise errors[0] if errors else RuntimeError(f"{name}: ended before its last value")
        values.put(_Item([value]))

    thread = _create_thread(run, name, done)
    try:
        thread.start()  # an interruption can arrive when the thread is already running
        yield put
        values.put(_End(None))
        thread.join()
    except BaseException:
        _abandon(values)
        if thread.ident is not None:
            thread.join(JOIN_S)
        raise
    if errors:
        raise errors[0]


class Background(Generic[T]):
    """The result of a function that runs on its own thread."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        """Start the thread.

        Args:
            work: The function.
            name: Name of the thread, for debuggers.
        """
        self._value: Future[T] = Future()
        _create_thread(lambda: self._run(work), name, threading.Event()).start()

    def _run(self, work: Callable[[], T]) -> None:
        try:
            self._value.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised on the other thread
            self._value.set_exception(error)

    def result(self) -> T:
        """Wait for the result and return it; an exception of the function is raised here."""
        return self._value.result()


def still_running() -> bool:
    """Return whether the thread of any stage is running, such as in the middle of a batch."""
    return any(thread.is_alive() for thread in list(_running))


@atexit.register
def _stop_all() -> None:
    """Stop stages that were not closed, because threads can crash Python during its shutdown."""
    alive = [(thread, stop) for thread, stop in _running.items() if thread.is_alive()]
    for _, stop in alive:
        stop.set()
    for thread, _ in alive:
        thread.join(JOIN_S)


def _create_thread(run: Callable[[], None], name: str, stop: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=run, name=f"av2tsam-{name}", daemon=True)
    _running[thread] = stop
    return thread


def _produce(
    items: Generator[T, None, None],
    values: _Queue[T],
    room: threading.Semaphore,
    stop: threading.Event,
    context: Callable[[], AbstractContextManager[object]],
) -> None:
    error: BaseException | None = None
    try:
        with context(), contextlib.closing(items):
            while _wait(room, stop) and (made := [*islice(items, 1)]):
                values.put(_Item(made))
    except BaseException as caught:  # noqa: BLE001 - raised on the other thread
        error = caught
    values.put(_End(error))


def _take(values: _Queue[T], room: threading.Semaphore) -> Generator[T, None, None]:
    """Yield the values of a queue up to its end, then raise its error if there is one.

    Asking for the next value makes room for another one.
    """
    while True:
        room.release()
        item = values.get()
        if isinstance(item, _End):
            break
        yield item.values.pop()
    if item.error is not None:
        raise item.error


def _wait(room: threading.Semaphore, stop: threading.Event) -> bool:
    """Wait for room; return False if `stop` is set first."""
    while not stop.is_set():
        if room.acquire(timeout=POLL_S):
            return True
    return False


def _abandon(values: _Queue[T]) -> None:
    """Replace all values in a queue by `Abandoned`. Only the thread that adds values calls this."""
    with contextlib.suppress(queue.Empty):
        while True:
            values.get_nowait()
    values.put(_End(Abandoned()))
