import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import pytest

from av2tsam_cli.threads import Abandoned, run_ahead, run_behind, still_running


def counting(stop: int, closed: list[str], made: list[int]) -> Generator[int, None, None]:
    try:
        for number in range(stop):
            made.append(number)
            yield number
    finally:
        closed.append(threading.current_thread().name)


def test_values_arrive_in_order_from_another_thread() -> None:
    closed: list[str] = []
    assert list(run_ahead(counting(50, closed, []), depth=2, name="count")) == list(range(50))
    assert closed == ["av2tsam-count"]


def test_the_producer_is_at_most_the_depth_ahead() -> None:
    made: list[int] = []
    for taken in run_ahead(counting(200, [], made), depth=3, name="count"):
        assert len(made) <= taken + 1 + 3


def test_no_stage_holds_a_value_that_was_passed_on() -> None:
    class Large:
        """Stands for a batch of frames."""

    alive: list[weakref.ref[Large]] = []
    most: list[int] = []

    def make() -> Generator[Large, None, None]:
        for _ in range(20):
            most.append(sum(each() is not None for each in alive))
            yield new()

    def new() -> Large:
        large = Large()
        alive.append(weakref.ref(large))
        return large

    def take(values: Iterator[Large]) -> None:
        for _ in map(id, values):  # unlike a loop over the values, this holds none of them
            pass

    with run_behind(take, depth=0, name="take") as put:
        for _ in map(put, run_ahead(make(), depth=1, name="make")):
            pass
    assert len(alive) == 20
    assert max(most) <= 2  # one on its way to the caller, one on its way to the stage behind


def test_an_error_is_raised_after_the_values_before_it() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    got: list[int] = []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(run_ahead(failing(), depth=5, name="fail"))
    assert not still_running()


def test_closing_the_last_of_several_stages_closes_the_first_on_its_own_thread() -> None:
    closed: list[str] = []

    def doubled(numbers: Generator[int, None, None]) -> Generator[int, None, None]:
        with closing(numbers):
            for number in numbers:
                yield 2 * number

    first = run_ahead(counting(1_000_000, closed, []), depth=2, name="first")
    last = run_ahead(doubled(first), depth=2, name="last")
    assert [next(last) for _ in range(3)] == [0, 2, 4]
    last.close()
    assert closed == ["av2tsam-first"]
    assert not still_running()


def test_a_stage_that_is_not_closed_ends_with_the_program() -> None:
    program = """
from av2tsam_cli.threads import run_ahead

def endless():
    try:
        while True:
            yield 0
    finally:
        print("closed")

numbers = run_ahead(endless(), depth=1, name="endless")
print(next(numbers))
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0", "closed"], "")


def test_a_stage_behind_has_processed_every_value_at_the_end_of_the_block() -> None:
    taken: list[int] = []
    threads: set[str] = set()

    def take(values: Iterator[int]) -> None:
        for value in values:
            taken.append(value)
            threads.add(threading.current_thread().name)

    with run_behind(take, depth=2, name="take") as put:
        for number in range(50):
            put(number)
    assert taken == list(range(50))
    assert threads == {"av2tsam-take"}
    assert not still_running()


def test_without_depth_a_stage_behind_finishes_one_value_before_it_gets_the_next() -> None:
    taken: list[int] = []

    def take(values: Iterator[int]) -> None:
        for value in values:
            time.sleep(0.002)
            taken.append(value)

    with run_behind(take, depth=0, name="take") as put:
        for number in range(10):
            put(number)
            assert len(taken) == number


def test_an_error_of_the_stage_behind_is_raised_in_its_caller() -> None:
    def fail(values: Iterator[int]) -> None:
        next(values)
        raise OSError("the disk is full")

    def feed(count: int, put: list[int]) -> None:
        with run_behind(fail, depth=1, name="fail") as take:
            for number in range(count):
                take(number)
                put.append(number)

    put: list[int] = []
    with pytest.raises(OSError, match="the disk is full"):
        feed(100, put)
    assert len(put) < 100
    with pytest.raises(OSError, match="the disk is full"):
        feed(1, put)


def test_abandoned_is_raised_in_a_stage_behind_if_its_caller_fails() -> None:
    ended: list[BaseException] = []

    def take(values: Iterator[int]) -> None:
        try:
            for _ in values:
                pass
        except Abandoned as error:
            ended.append(error)
            raise

    def feed_until_interrupted() -> None:
        with run_behind(take, depth=2, name="take") as put:
            for number in range(10):
                put(number)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feed_until_interrupted()
    assert len(ended) == 1
    assert not still_running()


def test_a_context_is_entered_and_left_on_the_stages_thread() -> None:
    seen: list[tuple[str, str]] = []

    @contextmanager
    def context() -> Iterator[None]:
        seen.append(("entered", threading.current_thread().name))
        yield
        seen.append(("left", threading.current_thread().name))

    numbers = (number for number in range(3))
    assert list(run_ahead(numbers, depth=1, name="test", context=context)) == [0, 1, 2]
    assert seen == [("entered", "av2tsam-test"), ("left", "av2tsam-test")]


def test_an_error_of_a_context_reaches_the_caller() -> None:
    def context() -> AbstractContextManager[None]:
        raise ValueError("no")

    numbers = (number for number in range(3))
    with pytest.raises(ValueError, match="no"):
        list(run_ahead(numbers, depth=1, name="test", context=context))
