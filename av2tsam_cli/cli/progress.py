"""How far a command is: as a bar, as lines of text, and as JSON."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

Unit = Literal["frames", "videos", "parts", "seconds", "bytes"]

RECENT_S = 15.0
"""Seconds over which the speed is measured."""
LONGEST_BAR = 30
"""Columns of the bar on a wide terminal."""
SHORTEST_BAR = 10
"""Columns of the bar on a narrow terminal."""
ELLIPSIS = "…"


class BatchProgress:
    """How far a batch is: which of its inputs are done, and how long the others will take."""

    def __init__(self, inputs: Mapping[Path, int], totals: Mapping[Path, float | None]) -> None:
        """Begin a batch.

        Args:
            inputs: All inputs of the command, with their numbers from 1 on.
            totals: The amount of work, in frames or seconds, of those that are to be processed;
                None where it is unknown.
        """
        self.files = len(inputs)
        self.number = 0
        self._numbers = inputs
        self._ahead: dict[Path, float | None] = {}
        self._ahead_sum = 0.0  # kept, because a batch can have very many inputs
        self._ahead_unknown = 0
        self._known_sum, self._known_count = 0.0, 0
        self._finished = 0.0
        self._began_s: float | None = None
        self.expect((), totals)

    def expect(self, checked: Iterable[Path], totals: Mapping[Path, float | None]) -> None:
        """Set what is known of inputs that have been checked; those without a total are skipped.

        Args:
            checked: The inputs.
            totals: The amount of work of those that are to be processed; None where it is unknown.
        """
        for source in checked:
            self._drop(source)
        for source, total in totals.items():
            self._ahead[source] = total
            self._ahead_sum += total or 0.0
            self._ahead_unknown += total is None
            self._known_sum += total or 0.0
            self._known_count += bool(total)

    def _drop(self, source: Path) -> None:
        if source in self._ahead:
            total = self._ahead.pop(source)
            self._ahead_sum -= total or 0.0
            self._ahead_unknown -= total is None

    def start(self, source: Path) -> None:
        """Begin an input."""
        if self._began_s is None:  # not before: loading a model can take longer than an input
            self._began_s = time.monotonic()
        self.number = self._numbers[source]
        self._drop(source)

    def finish(self, done: float) -> None:
        """End an input, of which this much was done."""
        self._finished += done

    def left_s(self, done: float, total: float | None) -> float | None:
        """Estimate the seconds until the last input is done.

        Inputs of unknown length count as much as the others do on average.

        Args:
            done: How much of the current input is done.
            total: How much it is in total; None if unknown.

        Returns:
            None if too little is known.
        """
        all_done = self._finished + done
        if self._began_s is None or all_done <= 0 or not self._known_count:
            return None
        elapsed_s = time.monotonic() - self._began_s
        mean = self._known_sum / self._known_count
        ahead = self._ahead_sum + mean * self._ahead_unknown
        ahead += max(0.0, (mean if total is None else total) - done)
        return ahead * elapsed_s / all_done


class Progress:
    """How far one input is, or one stage of a command."""

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
            total: The expected number of units; None if it is unknown.
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
        """Set how much is done."""
        now_s = time.monotonic()
        self.done = done
        self._recent.append((now_s, done))
        while len(self._recent) > 2 and self._recent[0][0] < now_s - RECENT_S:
            self._recent.popleft()

    @property
    def speed(self) -> float | None:
        """Units per second, recently; None if it is unknown."""
        (first_s, first), (last_s, last) = self._recent[0], self._recent[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None

    @property
    def left_s(self) -> float | None:
        """Seconds until this input or stage is done; None if that is unknown."""
        if self.total is None or not self.speed:
            return None
        return max(0, self.total - self.done) / self.speed

    @property
    def batch_left_s(self) -> float | None:
        """Seconds until all inputs are done; None without a batch, or if that is unknown."""
        return None if self.batch is None else self.batch.left_s(self.done, self.total)

    @property
    def place(self) -> str:
        """Which input of the batch this is, such as `file 3 of 5,000`; "" for a single one."""
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
        left_s, all_left_s = self.left_s, self.batch_left_s if self.place else None
        parts = [
            counts,
            *([] if self.speed is None else [_speed(self.speed, self.unit)]),
            *([] if left_s is None else [f"{clock(left_s)} left"]),
            *([] if all_left_s is None else [f"{clock(all_left_s)} left for all"]),
        ]
        return ": ".join(filter(None, [self.place, str(self.name), ", ".join(parts)]))

    def line(self, width: int, name: str) -> str:
        """Return the progress as one line with a bar.

        The name is shortened before the bar is, and the bar before the numbers are.

        Args:
            width: Columns of the terminal.
            name: What to call it.
        """
        total = "?" if self.total is None else _amount(self.total, self.unit)
        counts = [
            f"{_amount(self.done, self.unit)}/{total}",
            "--" if self.speed is None else _speed(self.speed, self.unit),
            clock(self.left_s),
            *([f"all {clock(self.batch_left_s)}"] if self.place else []),
        ]
        head, tail = f"{self.place}  " if self.place else "", f"  {'  '.join(counts)}"
        room = width - len(head) - len(tail) - 2
        columns = min(LONGEST_BAR, max(SHORTEST_BAR, room - cell_len(name), room // 2))
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
    """Return a duration such as 0:05, 12:30 or 3:02:10; dashes if it is unknown."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _cut(text: str, width: int) -> str:
    """Return as much of the start of a text as fits into `width` columns."""
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
