"""Write when sources are masked in a video, in the format of the file's suffix."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from av2tsam_cli.outputs.edit_list import write_edit_list
from av2tsam_cli.outputs.events import to_audacity, to_csv, to_srt, to_vtt
from av2tsam_cli.outputs.names import UNNAMED
from av2tsam_cli.outputs.part import WrittenPart, read_summaries
from av2tsam_cli.outputs.summary_file import SummaryFile
from av2tsam_cli.values import FrameSummary, MaskedFrame, SoundEvent

TEXT_FORMATS = {".csv": to_csv, ".srt": to_srt, ".vtt": to_vtt, ".txt": to_audacity}
"""Functions that convert events to text, by suffix."""


@dataclass
class _Interval:
    """Consecutive frames with a mask of a source."""

    start_s: float
    end_s: float
    scores: float = 0.0
    frames: int = 0

    def event(self, name: str) -> SoundEvent:
        return SoundEvent(name, self.start_s, self.end_s, self.scores / self.frames)


class EventList(SummaryFile):
    """Write the start and end times of the masks of each source, when the video has ended.

    An event is a run of consecutive frames with a mask of one source, from the start of the first
    frame to the end of the last. Times are seconds of the input, even if only a part of it is read.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: Path,
        rate: Fraction | None,
        timecode: str | None = None,
        unnamed: str = UNNAMED,
        overwrite: bool,
    ) -> None:
        """Collect the events of a video.

        Args:
            path: The file; its suffix is the format.
            source: The video.
            rate: Frames per second of the video; None if unknown.
            timecode: Timecode of the first frame of the video, for edit lists; None for zero.
            unnamed: The name of masks without names.
            overwrite: Whether an existing file is replaced.
        """
        super().__init__(path, overwrite=overwrite)
        self.source, self.rate, self.timecode, self.unnamed = source, rate, timecode, unnamed
        self._events: list[SoundEvent] = []
        self._current: dict[str, _Interval] = {}
        self._end_s = 0.0

    def write(self, masked: MaskedFrame) -> None:
        """Add the next frame."""
        self.add(masked.summary)

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Add the frames of all parts."""
        for frame in read_summaries(parts):
            self.add(frame)

    def add(self, frame: FrameSummary) -> None:
        """Add the next frame."""
        self._end_intervals(frame.time_s, keep=dict(self._scores(frame)))
        self._end_s = frame.end_s(self.rate)
        for name, score in self._scores(frame):
            interval = self._current.setdefault(name, _Interval(frame.time_s, frame.time_s))
            interval.scores, interval.frames = interval.scores + score, interval.frames + 1

    def _scores(self, frame: FrameSummary) -> Iterator[tuple[str, float]]:
        """Yield the name and score of each source that is masked in a frame."""
        if frame.sources is None:
            if frame.area_px:
                yield self.unnamed, frame.score
            return
        yield from ((each.name, each.score) for each in frame.in_view)

    def _end_intervals(self, end_s: float, keep: dict[str, float]) -> None:
        """End the intervals of sources that are not in the next frame, at its time."""
        for name in [name for name in self._current if name not in keep]:
            interval = self._current.pop(name)
            interval.end_s = end_s
            self._events.append(interval.event(name))

    def finish(self, part: Path) -> None:
        """Write the events in the order of their times."""
        self._end_intervals(self._end_s, keep={})
        events = sorted(self._events, key=lambda event: (event.start_s, event.end_s))
        suffix = self.path.suffix.lower()
        if suffix in {".edl", ".otio"}:
            write_edit_list(
                part,
                suffix,
                events,
                source=self.source,
                rate=self.rate,
                timecode=self.timecode,
            )
        elif suffix == ".json":
            found = {"input": str(self.source), "events": [asdict(event) for event in events]}
            part.write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            text = TEXT_FORMATS[suffix](events)
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
