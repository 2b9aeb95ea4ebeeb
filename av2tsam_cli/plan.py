"""Check a video and its outputs before processing, and plan the processing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.files import check_output, content_id, output_name, text_id
from av2tsam_cli.media.audio import choose_audio
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.network import NetworkPath, is_remote, is_stored, relative_path
from av2tsam_cli.options import either
from av2tsam_cli.outputs.edit_list import check_edit_list
from av2tsam_cli.outputs.encoding import CONTAINERS, Encoding, bits_per_channel, choose_encoding
from av2tsam_cli.outputs.record import ResultRecord
from av2tsam_cli.outputs.writers import DATASETS, check_target
from av2tsam_cli.segment_options import VIDEO_SUFFIXES, Format, SegmentOptions
from av2tsam_cli.stores import look_up
from av2tsam_cli.values import AudioStream, MediaInfo, VideoStream

if TYPE_CHECKING:
    from av2tsam_cli.inference.loading import ModelIdentity


@dataclass(frozen=True)
class SegmentPlan:
    """What to do with one video that has been checked."""

    info: MediaInfo
    """The contents of the file."""
    video: VideoStream
    """The video stream to segment."""
    audio: AudioStream | None
    """The audio stream; None without audio, so that masks are empty unless there is a text
    prompt."""
    zero_s: float
    """Start of the presentation on the file's own clock, in seconds."""
    format: Format
    """The format of the main output."""
    output: Path
    """The main output: a video file or a folder."""
    options: SegmentOptions
    """The options."""
    encoding: Encoding | None = None
    """How a video is encoded; None for other formats."""
    sides: Mapping[str, Path] = field(default_factory=dict)
    """The additional output files, by option."""

    @property
    def deep(self) -> bool:
        """Whether the video and its result have more than 8 bits per channel."""
        source_bits = bits_per_channel(self.video.pixel_format)
        return self.encoding is not None and min(self.encoding.bits, source_bits) > 8

    @property
    def end_s(self) -> float | None:
        """End of the video stream in seconds of the presentation; None if the file has no value."""
        if self.video.duration_s is not None:
            return self.video.start_s - self.zero_s + self.video.duration_s
        return self.info.duration_s

    @property
    def frames(self) -> int | None:
        """Approximate number of frames to process; None if the file has no value."""
        if self.end_s is None or self.video.rate is None:
            return self.video.frames or None
        end_s = self.end_s if self.options.end is None else min(self.options.end, self.end_s)
        return max(1, round((end_s - self.options.start) * self.video.rate))

    @property
    def duration_s(self) -> float | None:
        """Approximate duration of the frames to process, in seconds; None if unknown."""
        return self.frames / float(self.video.rate) if self.frames and self.video.rate else None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in pixels, as displayed."""
        return self.video.width, self.video.height

    def describe(self) -> str:
        """Describe what is read and what is written, in one line."""
        video, audio = self.video, self.audio
        rate = "unknown" if video.rate is None else f"{float(video.rate):.5g}"
        size = f"{video.width} x {video.height} at {rate} frames/s"
        sound = "no audio" if audio is None else f"{audio.codec} audio at {audio.rate_hz} Hz"
        encoding = self.encoding
        how = "" if encoding is None else f", {encoding.encoder}, {encoding.pixel_format}"
        return (
            f"{self.info.path}: {video.codec}, {video.pixel_format}, {size}; {sound}; to "
            f"{self.output} as {self.format}{how}"
        )


def plan_video(
    source: Path,
    out: Path,
    options: SegmentOptions,
    *,
    name: Path | None = None,
    suffix: str = "",
) -> SegmentPlan:
    """Check one video and its outputs before processing.

    Args:
        source: The video.
        out: A video file, or the folder in which the output is created.
        options: The options.
        name: Path of the output in that folder, without a suffix; None for the name of the video.
        suffix: Suffix of the output; "" for the default of the format.

    Raises:
        UsageError: The options do not fit the video or the output.
        MediaError: The video cannot be read, or has no audio though `require_audio` is set.
    """
    name = name or Path(output_name(source))
    kind, output = place_output(out, name, options.format, suffix)
    plan = replace(plan_reading(source, options, kind, output), sides=options.sides(name))
    check_target(output, kind, source=source, overwrite=options.overwrite)
    _check_sides(plan.sides, source, output, options.overwrite)
    return replace(plan, encoding=_encoding(plan))


def _encoding(plan: SegmentPlan) -> Encoding | None:
    """Return how the output of a plan is encoded; None if it is not a video."""
    options = plan.options
    settings = {"codec": options.codec, "crf": options.crf, "pix_fmt": options.pix_fmt}
    if plan.format in VIDEO_SUFFIXES:
        return choose_encoding(
            plan.output,
            "gray" if plan.format == "matte" else plan.video.pixel_format,
            alpha=plan.format == "cutout",
            codec=options.codec,
            crf=options.crf,
            pix_fmt=options.pix_fmt,
        )
    if given := [name for name, value in settings.items() if value is not None]:
        raise UsageError(f"`{given[0]}` has no effect on `format` {plan.format}; drop it")
    return None


def plan_reading(source: Path, options: SegmentOptions, kind: Format, output: Path) -> SegmentPlan:
    """Check that a video can be read with these options; see `plan_video`.

    Args:
        source: The video.
        options: The options.
        kind: The format to write.
        output: See `SegmentPlan.output`.
    """
    info = probe(source)
    audio = choose_audio(info, options.audio_stream)
    if audio is None and options.require_audio:
        raise MediaError(f"{source}: has no audio; drop `require_audio` to get empty masks")
    video = info.video[0]
    plan = SegmentPlan(
        info=info,
        video=video,
        audio=audio,
        zero_s=clock_zero(info, video, audio),
        format=kind,
        output=output,
        options=options,
    )
    if plan.end_s is not None and not info.may_jump and options.start >= plan.end_s:
        raise UsageError(
            f"{source}: `start` ({options.start:g} s) is after its end ({plan.end_s:g} s)"
        )
    return plan


def record_of(
    source: Path,
    options: SegmentOptions,
    kind: Format,
    output: Path,
    *,
    sides: Mapping[str, Path],
    model: "ModelIdentity",
) -> ResultRecord:
    """Return the record of what an output is made from, to be stored in it.

    Args:
        source: The video.
        options: The options.
        kind: The format.
        output: The main output.
        sides: The additional output files, by option. They are part of the record, because they
            have no record of their own.
        model: The model that computes the masks.

    Raises:
        MediaError: The video cannot be read.
    """
    files = {name: relative_path(path, output) for name, path in sides.items()}
    given = {**options.influences(kind), "precision": model.precision, **files}
    return ResultRecord(source.name, input_id(source), model.name, model.weights_id, given)


def input_id(source: Path) -> str:
    """Return a hash of the content of an input, or of its version in a store.

    Raises:
        MediaError: The input cannot be read.
    """
    if is_stored(source):
        return text_id(look_up(str(source)).version)
    if isinstance(source, NetworkPath) and source.version is not None:
        return text_id(source.version)
    try:
        return text_id(str(source)) if is_remote(source) else content_id(source)
    except OSError as error:
        raise MediaError(f"{source}: cannot be read ({error.strerror}); check it") from error


def place_output(
    out: Path, name: Path, wanted: Format | None, suffix: str = ""
) -> tuple[Format, Path]:
    """Return the format and the path of the main output for an input.

    Args:
        out: A video file, or the folder in which the output is created.
        name: Path of the output in that folder, without a suffix.
        wanted: The format; None for an overlay video, if `out` is a file.
        suffix: Suffix of the output; "" for the default of the format.

    Raises:
        UsageError: The name of the output does not fit the format.
    """
    suffixes = either(list(CONTAINERS))
    if out.suffix.lower() in CONTAINERS and not out.is_dir():
        if wanted is not None and wanted not in VIDEO_SUFFIXES:
            raise UsageError(f"{out}: `format` {wanted} needs a folder, not a video file")
        return wanted or "video", out
    if wanted in DATASETS and out.suffix.lower() in {".json", ".npz", ".yaml"}:
        raise UsageError(f"{out}: `format` {wanted} needs a folder, not the name of a file in it")
    if not out.is_dir() and (
        (out.suffix and wanted is None) or (wanted in VIDEO_SUFFIXES and guess_type(out.name)[0])
    ):  # "out.v2" may be a folder, "out.avi" is not meant as one
        raise UsageError(f"{out}: cannot write {out.suffix}; use {suffixes}")
    if wanted is None:
        raise UsageError(
            f"{out}: not a video file name; use {suffixes}, or set `format`, such as to masks, to "
            "write to a folder"
        )
    if suffix.lower() in CONTAINERS and wanted not in VIDEO_SUFFIXES:
        raise UsageError(f"`format` {wanted} writes folders; drop {suffix} from `name_template`")
    return wanted, out / f"{name}{suffix or VIDEO_SUFFIXES.get(wanted, '')}"


def _check_sides(sides: Mapping[str, Path], source: Path, main: Path, overwrite: bool) -> None:
    """Check that the additional output files can be written.

    Raises:
        UsageError: A file cannot be written, or would replace the input or another output.
    """
    owners = {Path(os.path.realpath(main)): "out"}
    if "events" in sides:
        check_edit_list(sides["events"])
    for option, path in sides.items():
        real = Path(os.path.realpath(path))
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; remove it, or choose another `{option}`")
        if path == source or (source.exists() and path.exists() and path.samefile(source)):
            raise UsageError(f"{path}: is the input itself; choose another `{option}`")
        for each in (real, *real.parents):
            if each in owners:
                raise UsageError(f"{path}: belongs to `{owners[each]}`; choose another `{option}`")
        check_output(path, overwrite=overwrite)
        owners[real] = option
