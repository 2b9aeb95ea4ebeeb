"""Convert sound events to text: CSV, SubRip and WebVTT subtitles, and Audacity labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av2tsam_cli.values import SoundEvent


def to_csv(events: Sequence[SoundEvent]) -> str:
    """Return a table with a header (RFC 4180, but with line feeds); times in seconds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "start_s", "end_s", "score"))
    for event in events:
        times = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
        writer.writerow((event.name, *times, f"{event.score:.3f}"))
    return text.getvalue()


def to_srt(events: Sequence[SoundEvent]) -> str:
    """Return SubRip subtitles, one per event; simultaneous events overlap."""
    return "".join(
        f"{number}\n{_clock(event.start_s, ',')} --> {_clock(event.end_s, ',')}\n"
        f"{_one_line(event.name).replace('-->', '->')}\n\n"
        for number, event in enumerate(events, start=1)
    )


def to_vtt(events: Sequence[SoundEvent]) -> str:
    """Return WebVTT subtitles (w3.org/TR/webvtt1), one cue per event."""
    cues = (
        f"{_clock(event.start_s, '.')} --> {_clock(event.end_s, '.')}\n"
        f"{_escaped(_one_line(event.name))}\n\n"
        for event in events
    )
    return "WEBVTT\n\n" + "".join(cues)


def to_audacity(events: Sequence[SoundEvent]) -> str:
    """Return a label track for Audacity's File > Import > Labels; times in seconds."""
    return "".join(
        f"{event.start_s:.6f}\t{event.end_s:.6f}\t{_one_line(event.name)}\n" for event in events
    )


def _clock(time_s: float, point: str) -> str:
    """Return a time as HH:MM:SS and milliseconds after the given point."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{point}{ms:03d}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
