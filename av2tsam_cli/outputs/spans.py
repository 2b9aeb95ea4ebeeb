"""Divide a video of unknown length into equal time spans."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

FIRST_S = 1 / 64
"""Initial length of a span."""


class Spans(Generic[T]):
    """A value for each span of time; memory does not depend on the length of the video.

    When there are too many spans, their length is doubled, and each two become one.
    """

    def __init__(self, max_count: int, merge: Callable[[T, T], T]) -> None:
        """Begin without spans.

        Args:
            max_count: Maximum number of spans.
            merge: Returns the value of a span, given the values of its earlier and later part.
        """
        self.max_count, self.merge = max_count, merge
        self.length_s = FIRST_S
        self._values: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._values)

    def at(self, time_s: float) -> T | None:
        """Return the value of the span around a time; None if it has none."""
        return self._values.get(int(time_s / self.length_s))

    def add(self, time_s: float, value: T) -> None:
        """Add a value at a time; times must not decrease."""
        self._put(int(time_s / self.length_s), value)
        if len(self._values) > self.max_count:
            self.length_s *= 2
            values, self._values = self._values, {}
            for number, each in values.items():
                self._put(number // 2, each)

    def _put(self, number: int, value: T) -> None:
        if number in self._values:
            value = self.merge(self._values[number], value)
        self._values[number] = value

    def values(self) -> list[T]:
        """Return the values in the order of their times."""
        return list(self._values.values())
