"""The progress of a command, as a bar, as lines of text, and as JSON."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

Unit = Literal["frames", "videos", "parts", "seconds", "bytes"]

RECENT_S = 15.0
"""Seconds over which the speed is measured."""
MAX_BAR = 30
"""Columns of the bar on a wide terminal."""
MIN_BAR = 10
"""Columns of the bar on a narrow terminal."""
ELLIPSIS = "…"


class BatchProgress:
    """The progress of a batch of inputs, with an estimate of the remaining time."""

    def __init__(self, inputs: Mapping[Path, int], totals: Mapping[Path, float | None]) -> None:
        """Begin a batch.

        Args:
            inputs: All inputs of the command, with their numbers, starting at 1.
            totals: The length, in frames or seconds, of each input to process; None if unknown.
        """
        self.files = len(inputs)
        self.number = 0
        self._numbers = inputs
        self._pending: dict[Path, float | None] = {}
        self._pending_sum = 0.0  # updated instead of computed, for batches with very many inputs
        self._pending_unknown = 0
        self._known_sum, self._known_count = 0.0, 0
        self._finished = 0.0
        self._began_s: float | None = None
        self.expect((), totals)

    def expect(self, checked: Iterable[Path], totals: Mapping[Path, float | None]) -> None:
        """Update the lengths of inputs that have been checked.

        Args:
            checked: The inputs.
            totals: The length of each of them that is to be processed; None if unknown.
        """
        for source in checked:
            self._drop(source)
        for source, total in totals.items():
            self._pending[source] = total
            self._pending_sum += total or 0.0
            self._pending_unknown += total is None
            self._known_sum += total or 0.0
            self._known_count += bool(total)

    def _drop(self, source: Path) -> None:
        if source in self._pending:
            total = self._pending.pop(source)
            self._pending_sum -= total or 0.0
            self._pending_unknown -= total is None

    def start(self, source: Path) -> None:
        """Begin an input."""
        if self._began_s is None:  # not earlier: loading the model can take longer than an input
            self._began_s = time.monotonic()
        self.number = self._numbers[source]
        self._drop(source)

    def finish(self, done: float) -> None:
        """End an input after this number of units."""
        self._finished += done

    def left_s(self, done: float, total: float | None) -> float | None:
        """Estimate the seconds until the last input is done.

        Inputs of unknown length are assumed to have the average length of the others.

        Args:
            done: Units of the current input that are done.
            total: Length of the current input; None if unknown.

        Returns:
            None if too little is known.
        """
        all_done = self._finished + done
        if self._began_s is None or all_done <= 0 or not self._known_count:
            return None
        elapsed_s = time.monotonic() - self._began_s
        mean = self._known_sum / self._known_count
        remaining = self._pending_sum + mean * self._pending_unknown
        remaining += max(0.0, (mean if total is None else total) - done)
        return remaining * elapsed_s / all_done


class Progress:
    """The progress of one input, or of one stage of a command."""

    def __init__(
        self,
        name: str | Path,
        total: int | None,
        unit: Unit,
        batch: BatchProgress | None = None,
    ) -> None:
        """Begin an input or a stage.

        Args:
            name: An input, or the name of a stage.
            total: The expected number of units; None if unknown.
            unit: What is counted.
            batch: The batch that the input belongs to.
        """
        self.name = name
        self.total = total
        self.unit = unit
        self.batch = batch
        self.done = 0
        self._recent = deque([(time.monotonic(), 0)])

    def update(self, done: int) -> None:
        """Set the number of units that are done."""
        now_s = time.monotonic()
        self.done = done
        self._recent.append((now_s, done))
        while len(self._recent) > 2 and self._recent[0][0] < now_s - RECENT_S:
            self._recent.popleft()

    @property
    def speed(self) -> float | None:
        """Recent speed in units per second; None if unknown."""
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None

    @property
    def left_s(self) -> float | None:
        """Seconds until this input or stage is done; None if unknown."""
        if self.total is None or not self.speed:
            return None
        return max(0, self.total - self.done) / self.speed

    @property
    def batch_left_s(self) -> float | None:
        """Seconds until all inputs are done; None without a batch, or if unknown."""
        return None if self.batch is None else self.batch.left_s(self.done, self.total)

    @property
    def position(self) -> str:
        """The position in the batch, such as `file 3 of 5,000`; "" for a single input."""
        if self.batch is None or self.batch.files == 1:
            return ""
        return f"file {self.batch.number:,} of {self.batch.files:,}"

    def to_json(self) -> dict[str, object]:
        """Return the object that `--progress json` prints."""
        return {
            "progress": str(self.name),
            "file": None if self.batch is None else self.batch.number,
            "files": None if self.batch is None else self.batch.files,
            "unit": self.unit,
            "done": self.done,
            "total": self.total,
            "per_second": _rounded(self.speed),
            "seconds_left": _rounded(self.left_s),
            "seconds_left_all": _rounded(self.batch_left_s),
        }

    def describe(self) -> str:
        """Return a line for people who read a log."""
        total = "" if self.total is None else f" of {_amount(self.total, self.unit)}"
        counts = f"{_amount(self.done, self.unit)}{total}"
        counts += "" if self.unit == "bytes" else f" {self.unit}"
        left_s, all_left_s = self.left_s, self.batch_left_s if self.position else None
        parts = [
            counts,
            *([] if self.speed is None else [_speed(self.speed, self.unit)]),
            *([] if left_s is None else [f"{clock(left_s)} left"]),
            *([] if all_left_s is None else [f"{clock(all_left_s)} left for all"]),
        ]
        return ": ".join(filter(None, [self.position, str(self.name), ", ".join(parts)]))

    def line(self, width: int, name: str) -> str:
        """Return the progress as one line with a bar.

        On narrow terminals, first the name is shortened, then the bar, then the numbers.

        Args:
            width: Columns of the terminal.
            name: The name to show.
        """
        total = "?" if self.total is None else _amount(self.total, self.unit)
        counts = [
            f"{_amount(self.done, self.unit)}/{total}",
            "--" if self.speed is None else _speed(self.speed, self.unit),
            clock(self.left_s),
            *([f"all {clock(self.batch_left_s)}"] if self.position else []),
        ]
        head, tail = f"{self.position}  " if self.position else "", f"  {'  '.join(counts)}"
        room = width - len(head) - len(tail) - 2
        columns = min(MAX_BAR, max(MIN_BAR, room - cell_len(name), room // 2))
        name = shorten(name, max(0, room - columns))
        columns = min(columns, room - cell_len(name))
        return f"{head}{name}  {self._bar(columns)}{tail}"

    def _bar(self, columns: int) -> str:
        share = min(1.0, self.done / self.total) if self.total else 0.0
        full = round(max(0, columns) * share)
        return "━" * full + "─" * (columns - full)


def cell_len(text: str) -> int:
    """Return the columns that a text takes on a terminal; many Asian characters take two."""
    from rich.cells import cell_len as count

    return count(text)


def shorten(text: str, width: int) -> str:
    """Shorten a text in the middle so that it takes at most `width` columns."""
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    tail_width = (width - 1) // 2
    tail = _cut(text[::-1], tail_width)[::-1]
    return _cut(text, width - 1 - tail_width) + ELLIPSIS + tail


def clock(seconds: float | None) -> str:
    """Return a duration such as 0:05, 12:30 or 3:02:10; dashes if unknown."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _cut(text: str, width: int) -> str:
    """Return the start of a text that fits into `width` columns."""
    length = 0
    for index, char in enumerate(text):
        length += cell_len(char)
        if length > width:
            return text[:index]
    return text


def _amount(count: int, unit: Unit) -> str:
    if unit != "bytes":
        return f"{count}"
    from rich.filesize import decimal

    return decimal(count)


def _speed(speed: float, unit: Unit) -> str:
    return f"{_amount(round(speed), unit) if unit == 'bytes' else f'{speed:.1f}'}/s"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
