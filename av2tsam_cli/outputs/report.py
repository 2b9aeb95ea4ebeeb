"""Write a web page about a result: overlay, timeline, settings, model and outputs."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from PIL import Image

from av2tsam_cli import __version__
from av2tsam_cli.network import is_url, relative_path
from av2tsam_cli.outputs.contact_sheet import Moments
from av2tsam_cli.outputs.names import UNNAMED, NameTable, colour_of
from av2tsam_cli.outputs.overlay import style_of
from av2tsam_cli.outputs.part import WrittenPart, read_summaries
from av2tsam_cli.outputs.spans import Spans
from av2tsam_cli.outputs.summary_file import SummaryFile
from av2tsam_cli.segment_options import Format, SegmentOptions
from av2tsam_cli.values import FrameSummary, MaskedFrame, MediaInfo, VideoStream

if TYPE_CHECKING:
    from av2tsam_cli.outputs.encoding import Encoding

EMBEDDED_BYTES = 16 << 20
"""Size up to which a video is embedded in the page; larger ones are linked."""
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
"""The containers that all browsers play, and their media types."""
BROWSER_CODECS = {
    "libx264": ("yuv420p",),
    "libvpx-vp9": ("yuv420p",),
    "libsvtav1": ("yuv420p", "yuv420p10le"),
}
"""The encoders, with pixel formats, whose videos nearly all browsers play."""
MAX_SPANS = 2048
"""Maximum number of time spans on the timeline; with enough frames, there are at least half as
many."""
SILENCE_DBFS = -120.0
"""Level to show for digital silence, because JSON has no infinity."""


@dataclass
class _Span:
    """Statistics of the frames in a span of time."""

    time_s: float
    """Time of the first frame."""
    frames: int = 0
    level_dbfs: float | None = None
    """Level of the loudest frame; None without sound."""
    area: float = 0.0
    """Sum over the frames of the share that is masked."""
    sources: dict[str, float] = field(default_factory=dict)
    """The same sum for each name."""

    def add(self, other: _Span) -> _Span:
        """Add the next span to this one, and return this one."""
        self.frames += other.frames
        self.area += other.area
        if other.level_dbfs is not None:
            own = SILENCE_DBFS if self.level_dbfs is None else self.level_dbfs
            self.level_dbfs = max(own, other.level_dbfs)
        for name, area in other.sources.items():
            self.sources[name] = self.sources.get(name, 0.0) + area
        return self


@dataclass
class Timeline:
    """Sound level and masked area over time; memory does not depend on the video's length."""

    unnamed: str = UNNAMED
    """The name of masks without names."""
    _spans: Spans[_Span] = field(default_factory=lambda: Spans(MAX_SPANS, _Span.add))

    def add(self, frame: FrameSummary) -> None:
        """Add the next frame."""
        level = frame.level_dbfs
        sources = {self.unnamed: frame.area} if frame.area else {}
        if frame.sources is not None:
            sources = dict(frame.named_areas())
        level = None if level is None else max(level, SILENCE_DBFS)
        self._spans.add(frame.time_s, _Span(frame.time_s, 1, level, frame.area, sources))

    def to_json(self, colours: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
        """Return the values of each curve of the timeline, one per span.

        Args:
            colours: RGB of the sources, in display order.
        """
        spans = self._spans.values()
        return {
            "span_s": self._spans.length_s,
            "silence_dbfs": SILENCE_DBFS,
            "times": [round(span.time_s, 3) for span in spans],
            "levels": [
                None if span.level_dbfs is None else round(span.level_dbfs) for span in spans
            ],
            "areas": [_share(span.area, span) for span in spans],
            "sources": [
                {
                    "name": name,
                    "color": "#{:02x}{:02x}{:02x}".format(*colour),
                    "areas": [_share(span.sources.get(name, 0.0), span) for span in spans],
                }
                for name, colour in colours.items()
            ],
        }


def _share(area: float, span: _Span) -> float:
    """Return the mean area, which is never rounded to 0 if there is a mask."""
    return max(round(area / span.frames, 4), 1e-4) if area else 0


class Report(SummaryFile):
    """Write a page about a result, when the other outputs are complete.

    The page needs no network and no other files, except for a video of more than `EMBEDDED_BYTES`,
    which is linked. It shows pictures instead if there is no video that browsers can play.
    """

    def __init__(
        self,
        path: Path,
        *,
        info: MediaInfo,
        video: VideoStream,
        options: SegmentOptions,
        kind: Format,
        encoding: Encoding | None,
        outputs: Sequence[Path],
        model: Mapping[str, object],
        overwrite: bool,
    ) -> None:
        """Prepare to collect the data of the page.

        Args:
            path: The file.
            info: The input, as probed.
            video: Its video stream.
            options: The settings.
            kind: Format of the main output.
            encoding: How it is encoded; None if it is not a video.
            outputs: The main output and additional files, which are completed before the page.
            model: Properties of the model, as JSON values.
            overwrite: Whether an existing file is replaced.
        """
        super().__init__(path, overwrite=overwrite)
        self.info, self.video, self.options = info, video, options
        self.kind, self.encoding, self.files, self.model = kind, encoding, outputs, model
        self.moments, self.table = Moments(video, options), NameTable()
        self.timeline = Timeline(options.text or UNNAMED)
        self._end_s = 0.0
        self._frames = self._with_mask = 0

    def write(self, masked: MaskedFrame) -> None:
        """Add the next frame."""
        self.moments.add(masked)
        self.add(masked.summary)

    def add(self, frame: FrameSummary) -> None:
        """Add the next frame to the timeline."""
        self.timeline.add(frame)
        self.table.count(frame)
        self._end_s = frame.end_s(self.video.rate)
        self._frames += 1
        self._with_mask += frame.area_px > 0

    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Add the frames of all parts."""
        self.moments.append(parts)
        for frame in read_summaries(parts):
            self.add(frame)

    def finish(self, part: Path) -> None:
        """Write the page."""
        page = fill_page(self.info.path.name, self._data())
        # Names that are not valid UTF-8 are shown with replacement characters.
        part.write_text(page, encoding="utf-8", errors="xmlcharrefreplace")

    def _data(self) -> dict[str, Any]:
        """Return the data of the page."""
        return {
            "title": self.info.path.name,
            "summary": self._summary(),
            "start_s": self.options.start,
            "end_s": round(self._end_s, 3),
            **self.timeline.to_json(self._colours()),
            "pictures": [*self._pictures()],
            "video": self._video(),
            "no_video": self._no_video(),
            "outputs": [self._output(file) for file in self.files],
            "settings": [*_settings(self.options)],
            "defaults": f"All other options have the defaults of av2tsam {__version__}.",
            "model": self.model,
        }

    def _summary(self) -> str:
        video, rate = self.video, self.video.rate
        per_second = f", {float(rate):.5g} frames/s" if rate else ""
        sound = self.info.audio[0].codec if self.info.audio else "no audio"
        return (
            f"{video.width} \N{MULTIPLICATION SIGN} {video.height}{per_second}, {video.codec}, "
            f"{sound}; {self._with_mask} of {self._frames} frames with a mask"
        )

    def _colours(self) -> dict[str, tuple[int, int, int]]:
        """Return the colours of the sources in the overlay, in the order of their numbers."""
        numbers = {name: number for number, name, _ in self.table.in_view}
        numbers = numbers or {self.timeline.unnamed: 1}
        if self.options.names:
            return {name: colour_of(number) for name, number in numbers.items()}
        return dict.fromkeys(numbers, style_of(self.options).colour)

    def _pictures(self) -> Iterator[dict[str, Any]]:
        for moment in self.moments.chosen():
            picture, file = Image.fromarray(self.moments.draw(moment)), io.BytesIO()
            picture.save(file, "JPEG", quality=85)
            yield {
                "time_s": round(moment.masked.frame.time_s, 3),
                "names": list(moment.names),
                "width": picture.width,
                "height": picture.height,
                "image": f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}",
            }

    def _video(self) -> dict[str, str] | None:
        """Return the overlay video as Base64 or a link; None if browsers cannot play it."""
        main = self.files[0]
        if self._no_video():
            return None
        kind = VIDEO_TYPES[main.suffix.lower()]
        if main.stat().st_size > EMBEDDED_BYTES:
            return {"type": kind, "link": self._link(main)}
        return {"type": kind, "base64": base64.b64encode(main.read_bytes()).decode()}

    def _no_video(self) -> str:
        """Return why the page has pictures instead of a video; "" if it has one."""
        main, encoding = self.files[0], self.encoding
        if self.kind != "video" or encoding is None:
            return f"Moments of the video: the output of --format {self.kind} is no overlay video."
        played = encoding.pixel_format in BROWSER_CODECS.get(encoding.encoder, ())
        if played and main.suffix.lower() in VIDEO_TYPES:
            return ""
        return (
            f"Moments of the video: not all browsers play {main.name}. "
            "An .mp4 with --codec h264 --pix-fmt yuv420p would be shown here."
        )

    def _output(self, file: Path) -> dict[str, str]:
        what = "folder" if file.is_dir() else _size(file.stat().st_size)
        return {"name": file.name, "link": self._link(file), "what": f"({what})"}

    def _link(self, file: Path) -> str:
        """Return a URL relative to the page."""
        path = relative_path(file, self.path)
        return path if is_url(path) else quote(os.fsencode(Path(path).as_posix()))


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _settings(options: SegmentOptions) -> Iterator[tuple[str, str]]:
    """Yield the options that differ from their defaults, as flags with their values."""
    for each in fields(options):
        value = getattr(options, each.name)
        if value == each.default:
            continue
        flag = f"--{each.name.replace('_', '-')}"
        if isinstance(value, bool):
            yield (flag if value else f"--no-{flag[2:]}"), ("on" if value else "off")
        else:
            many = isinstance(value, tuple)
            yield flag, ", ".join(map(str, value)) if many else str(value)


def fill_page(title: str, data: Mapping[str, Any]) -> str:
    """Return the page, with all text escaped.

    Args:
        title: The title of the page.
        data: The data of the page, as JSON values.
    """
    template = resources.files("av2tsam_cli") / "assets" / "report.html"
    values = {
        "title": html.escape(title),
        # Within a script, HTML only recognises tags and comments, which begin with "<".
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    pattern = re.compile(r"\{\{(\w+)\}\}")
    return pattern.sub(lambda match: values[match[1]], template.read_text(encoding="utf-8"))
