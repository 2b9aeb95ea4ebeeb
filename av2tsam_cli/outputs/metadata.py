"""Copy the metadata of a source: title, times, timecode and chapters."""

import re
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream as AvVideoStream

from av2tsam_cli.media.container import open_media
from av2tsam_cli.values import VideoStream

KEPT = ("title", "artist", "comment", "copyright", "creation_time", "date", "description")
"""Tags that are copied. The location and the device stay private."""
TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d)")
"""Hours, minutes, seconds and frames; `;` or `.` before the frames marks drop-frame timecodes."""
DAY_MIN = 24 * 60


def copy_metadata(
    source: InputContainer,
    output: OutputContainer,
    track: AvVideoStream,
    *,
    video: VideoStream,
    zero_s: float,
    start_s: float,
    stop_s: float | None,
) -> None:
    """Copy tags, the timecode and chapters of a source to an output that begins at `start_s`.

    Args:
        source: The source.
        output: The output, before its first packet.
        track: The video stream of the output.
        video: The video stream of the source.
        zero_s: Start of the presentation on the source's own clock, in seconds.
        start_s: Time 0 of the output, in seconds of the presentation.
        stop_s: End of the output, in seconds of the presentation; None for the source's end.
    """
    tags = _tags(source.metadata)
    output.metadata.update({name: tags[name] for name in KEPT if name in tags})
    first_s = video.start_s - zero_s
    if (timecode := _timecode(source, video.index)) and video.rate:
        later = max(0, ceil((start_s - first_s) * video.rate - Fraction(1, 1000)))
        if (shifted := later_timecode(timecode, later, video.rate)) is not None:
            track.metadata["timecode"] = shifted
    end_s = stop_s
    if end_s is None and video.duration_s is not None:
        end_s = first_s + video.duration_s
    length_s = None if end_s is None else end_s - start_s
    output.set_chapters(_chapters(source, zero_s + start_s, length_s))


def _chapters(source: InputContainer, begin_s: float, length_s: float | None) -> list[Any]:
    """Return the chapters after a time on the source's clock, which becomes time 0."""
    chapters: list[Any] = []
    for chapter in source.chapters():
        tick = chapter["time_base"] or Fraction(1, 1000)
        begin, end = (chapter[edge] - round(begin_s / tick) for edge in ("start", "end"))
        begin = max(0, begin)
        if length_s is not None:
            end = min(end, round(length_s / tick))
        if begin < end:
            chapters.append({**chapter, "start": begin, "end": end})
    return chapters


def later_timecode(timecode: str, frames: int, rate: Fraction) -> str | None:
    """Return the timecode of a later frame.

    Args:
        timecode: A timecode such as `01:00:00:00`. With `;` before the frames, it is a drop-frame
            timecode: at 30 frames per second, the first two numbers are left out in nine of ten
            minutes, at 60 the first four (SMPTE ST 12-1).
        frames: Number of frames to add.
        rate: Frames per second.

    Returns:
        The timecode, which continues from 0 at midnight; None if the given one is not valid.
    """
    found, fps = TIMECODE.fullmatch(timecode), round(rate)
    if found is None or fps < 1:
        return None
    hours, minutes, seconds, frame = (int(found[k]) for k in (1, 2, 3, 5))
    drops = found[4] != ":"
    if frame >= fps or (drops and fps % 30):
        return None
    dropped = fps // 15 if drops else 0
    per_minute, per_ten = 60 * fps - dropped, 600 * fps - 9 * dropped
    minutes += 60 * hours
    number = (60 * minutes + seconds) * fps + frame - dropped * (minutes - minutes // 10)
    tens, number = divmod((number + frames) % (DAY_MIN // 10 * per_ten), per_ten)
    skips = max(0, (number - dropped) // per_minute)  # the first of ten minutes drops nothing
    number += dropped * skips
    minutes, number = divmod(number, 60 * fps)
    minutes += 10 * tens
    seconds, frame = divmod(number, fps)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{found[4]}{frame:02}"


def read_timecode(path: Path, index: int) -> str | None:
    """Return the timecode of the first frame of a video stream; None if there is none.

    Raises:
        MediaError: The file cannot be opened.
    """
    with open_media(path) as source:
        return _timecode(source, index)


def _timecode(source: InputContainer, index: int) -> str | None:
    """Return the timecode of the first frame, from the stream, the file or a timecode track."""
    streams = [source.streams[index], *source.streams.data]
    tags = [_tags(streams[0].metadata), _tags(source.metadata)]
    tags += [_tags(stream.metadata) for stream in streams[1:]]
    return next((each["timecode"] for each in tags if "timecode" in each), None)


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    """Return tags with lower-case names; Matroska has upper-case names."""
    return {name.lower(): value for name, value in metadata.items()}
