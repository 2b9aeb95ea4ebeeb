"""Write events as edit lists for video editors: OpenTimelineIO, and CMX 3600 EDL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av2tsam_cli.errors import UsageError
from av2tsam_cli.media.frames import ASSUMED_RATE
from av2tsam_cli.network import url_of

if TYPE_CHECKING:
    from av2tsam_cli.values import SoundEvent

MODULES = {".otio": ("opentimelineio",), ".edl": ("opentimelineio", "otio_cmx3600_adapter")}
"""Optional packages that write each format."""
TIMECODE_RATES = (24_000 / 1001, 24.0, 25.0, 30_000 / 1001, 30.0, 50.0, 60_000 / 1001, 60.0)
"""Frames per second for which there are timecodes."""


def check_edit_list(path: Path) -> None:
    """Check that the packages for an edit list are installed; other formats need none.

    Raises:
        UsageError: A package is missing.
    """
    for module in MODULES.get(path.suffix.lower(), ()):
        if find_spec(module) is None:
            raise UsageError(
                f"{path}: needs OpenTimelineIO; run: pip install 'av2tsam[editing]', or choose "
                "another format for `events`"
            )


def write_edit_list(
    path: Path,
    suffix: str,
    events: Sequence[SoundEvent],
    *,
    source: Path,
    rate: Fraction | None,
    timecode: str | None = None,
) -> None:
    """Write a timeline with a clip of the source for each event.

    In OpenTimelineIO, each name has its own track, in which clips keep their times. EDLs have one
    track, in which the clips follow each other in order of their start. Times are in frames; EDLs
    have timecodes, which only exist for some rates.

    Args:
        path: The file to write.
        suffix: `.otio` or `.edl`.
        events: The events, in order of their start.
        source: The video that the clips refer to.
        rate: Frames per second of the video; None if unknown.
        timecode: Timecode of the first frame, by which editors find the clips; None for zero.
    """
    import opentimelineio as otio

    if suffix == ".edl" and not events:  # the adapter fails without events
        path.write_text(f"TITLE: {source.stem}\n", encoding="utf-8")
        return
    fps = float(rate or ASSUMED_RATE)
    if suffix == ".edl":
        fps = _timecode_rate(fps)
    first = _first_frame(timecode, fps)
    clips = [(event, _clip(event, source, fps, first)) for event in events]
    timeline = otio.schema.Timeline(source.stem)
    if suffix == ".edl":
        track = otio.schema.Track("V1", children=[clip for _, clip in clips])
        timeline.tracks.append(track)
    for name in dict.fromkeys(event.name for event in events) if suffix == ".otio" else ():
        own = [clip for event, clip in clips if event.name == name]
        timeline.tracks.append(otio.schema.Track(name, children=list(_with_gaps(own, fps, first))))
    adapter = "cmx_3600" if suffix == ".edl" else "otio_json"
    rates = {"rate": fps} if suffix == ".edl" else {}
    otio.adapters.write_to_file(timeline, str(path), adapter_name=adapter, **rates)


def _timecode_rate(fps: float) -> float:
    """Return the lowest timecode rate that is a multiple of a rate; the highest one if none is."""
    for each in TIMECODE_RATES:
        if abs(each / fps - max(1, round(each / fps))) < 1e-4:
            return each
    return TIMECODE_RATES[-1]


def _first_frame(timecode: str | None, fps: float) -> int:
    """Return the frame number for a timecode; 0 for None, or if it is not valid for the rate."""
    import opentimelineio as otio

    with suppress(ValueError):
        return round(otio.opentime.from_timecode(timecode, fps).value) if timecode else 0
    return 0


def _clip(event: SoundEvent, source: Path, fps: float, first: int) -> Any:
    import opentimelineio as otio

    start, end = (first + round(time_s * fps) for time_s in (event.start_s, event.end_s))
    return otio.schema.Clip(
        " ".join(event.name.split()),  # one line
        media_reference=otio.schema.ExternalReference(url_of(source) or source.resolve().as_uri()),
        source_range=otio.opentime.TimeRange(
            otio.opentime.RationalTime(start, fps),
            otio.opentime.RationalTime(max(1, end - start), fps),
        ),
        metadata={"av2tsam": {"score": event.score}, "cmx_3600": {"reel": source.stem}},
    )


def _with_gaps(clips: Sequence[Any], fps: float, first: int) -> Iterator[Any]:
    """Yield clips with gaps before them, so that each begins at its time in the source."""
    import opentimelineio as otio

    at = otio.opentime.RationalTime(first, fps)
    for clip in clips:
        if clip.source_range.start_time > at:
            yield otio.schema.Gap(duration=clip.source_range.start_time - at)
        yield clip
        at = clip.source_range.end_time_exclusive()
