"""The pipeline: from a video to the masks of its sound sources.

    video file ─┬─ frames ─────────┐
                └─ audio windows ──┴─ schedule ─ prepare ║ network ║ masks ─ writer
                                        decode thread       caller     write thread

Each `║` is a bounded queue between two threads, so memory depends on the batch size, not on the
length of the video. The network runs on the calling thread, where it does not compete with OpenMP
threads of other stages, and where freed memory can be reused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media.audio import split_windows
from av2tsam_cli.media.container import count_frames_before
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.frames import frames_from_arrays
from av2tsam_cli.network import input_path, is_url
from av2tsam_cli.outputs.contact_sheet import ContactSheet
from av2tsam_cli.outputs.event_list import EventList
from av2tsam_cli.outputs.frame_table import FrameTable
from av2tsam_cli.outputs.metadata import read_timecode
from av2tsam_cli.outputs.report import Report
from av2tsam_cli.outputs.writers import Writer, open_writer
from av2tsam_cli.plan import SegmentPlan, plan_reading, plan_video, record_of
from av2tsam_cli.segment_options import (
    REUSE_LEVELS,
    SILENCE_DBFS,
    Codec,
    Colour,
    Format,
    Hear,
    PixelFormat,
    Rate,
    SegmentOptions,
    Style,
    Timing,
)
from av2tsam_cli.stages import (
    ComputedBatch,
    are_large,
    batch_size_for,
    codec_threads,
    compute,
    masked,
    rate_for,
    read_scheduled,
    schedule,
    smoothed,
    when_done,
)
from av2tsam_cli.staging import staged
from av2tsam_cli.threads import run_behind
from av2tsam_cli.timeline.schedule import (
    ScheduledFrame,
    logits_over_time,
)
from av2tsam_cli.timeline.trust import LONGEST_S
from av2tsam_cli.values import AudioWindow, Damage, FrameSummary, MaskedFrame

if TYPE_CHECKING:  # importing torch takes seconds, so wrong paths are reported before
    import numpy.typing as npt

    from av2tsam_cli.hub.locate import Use
    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.inference.segmenter import Segmenter

LONG_RUN_S = 300.0
"""Estimated seconds for a video from which on the estimate is logged."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentResult:
    """What was written for one video."""

    input: Path
    """The video."""
    text: str | None
    """The text prompt; None if the sound source was segmented."""
    hear: Hear | None
    """How sound sources were found: `trained` or `words`; None with a text prompt."""
    outputs: tuple[Path, ...]
    """The main output, which is a file or a folder, then the additional files."""
    format: Format
    """The format of the main output."""
    start: float
    """Start of the segmented range, in seconds from the beginning of the video."""
    rate: Fraction | None
    """Average frames per second of the video; None if unknown."""
    size: tuple[int, int]
    """Width and height of the frames in pixels, as displayed."""
    has_audio: bool
    """Whether the video has audio."""
    silent_s: float | None
    """Seconds of silence; None with a text prompt."""
    frames: int
    """Number of frames written."""
    frames_computed: int
    """Frames whose mask the network computed; others are interpolated, reused or silent."""
    duration_s: float
    """Duration of these frames in seconds."""
    model: str
    """Name of the model."""
    device: str
    """`cpu`, `cuda` or `mps`."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    fps: str
    """Masks to compute per second, such as `5` or `30000/1001`; `auto` or `all`."""
    pix_fmt: str | None
    """Pixel format of the video written; None for PNGs."""
    wall_s: float
    """Processing time in seconds, without loading the model."""
    frames_with_mask: int
    """Frames with a non-empty mask."""
    mean_area: float
    """Share of the frame that the mask covers, mean over all frames, 0 to 1."""
    timing: Timing | None
    """How sound was assigned to frames: `fine` or `paper`; None with a text prompt."""
    smooth: bool
    """Whether the masks were smoothed over time."""
    refine: bool
    """Whether the edges of masks were aligned with edges in the picture."""
    sources: tuple[SourceSummary, ...]
    """The named sources with masks, most frames first; empty if sources have no names."""
    damage: Damage | None = None
    """The parts of the video that could not be read; None if no damage is known."""


@dataclass(frozen=True)
class SourceSummary:
    """A named source of a video."""

    name: str
    """Its name."""
    frames: int
    """Number of frames with a mask of it."""
    mean_area: float
    """Share of the frame that its mask covers, mean over these frames, 0 to 1."""


def segment_video(
    source: str | Path,
    out: str | Path,
    *,
    format: Format | None = None,  # noqa: A002 - the option's name
    text: str | None = None,
    hear: Hear | None = None,
    vocabulary: Path | None = None,
    name: Sequence[str] = (),
    names: bool = False,
    style: Style = "highlight",
    color: Colour | None = None,
    opacity: float | None = None,
    dim: bool = True,
    feather: float = 0.0,
    grow: int = 0,
    hard: bool = False,
    hud: bool = False,
    frames_csv: Path | None = None,
    events: Path | None = None,
    preview: Path | None = None,
    report: Path | None = None,
    overwrite: bool = False,
    start: float = 0.0,
    end: float | None = None,
    audio_stream: int | str | None = None,
    require_audio: bool = False,
    allow_partial: bool = False,
    allow_url: bool = False,
    fps: Rate | None = None,
    timing: Timing = "fine",
    threshold: float = 0.5,
    silence_dbfs: float | None = SILENCE_DBFS,
    reuse: float | None = REUSE_LEVELS,
    smooth: bool = True,
    refine: bool = True,
    codec: Codec | None = None,
    crf: int | None = None,
    pix_fmt: PixelFormat | None = None,
    batch_size: int | None = None,
    model: str | Path | LoadedModel | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int], None] | None = None,
) -> SegmentResult:
    """Segment the sound source in a video, or what a phrase describes, and write the result.

    Args:
        source: The video file, or its URL in a store or on a web server, which is copied first.
        out: A video file (.mp4, .mov, .mkv, .webm) for an overlay video with the original audio;
            for PNGs, the folder in which a folder named like the input is created.
        format: `video`, `matte` or `cutout` for videos, `masks`, `overlays`, `mattes`, `cutouts`,
            `named-masks` or `indexed-masks` for PNGs, `coco`, `yolo` or `npz` for data sets; None
            for an overlay video.
        text: What to segment, such as "the dog"; None for the sound source.
        hear: `trained` to find sound sources as the model was trained to, `words` to name what is
            heard and segment each name; None for `words` if another option needs names, else
            for `trained` if the model was trained for this.
        vocabulary: A vocabulary file for `words`; None for the built-in one.
        name: Names of the vocabulary to use; empty for all.
        names: Whether overlays show names, and one colour per source.
        style: `highlight`, `outline`, `blur`, `spotlight`, `mono`, `heat` or `side-by-side`.
        color: RGB of the tint or outline, 0 to 255; None for pink.
        opacity: Opacity of the tint, from 0 to 1; None for the default of the style.
        dim: Whether the rest of the picture is darkened, if the style does so.
        feather: Pixels by which the edges of mattes and cutouts are softened.
        grow: Pixels by which they are moved outwards; negative to move them inwards.
        hard: Whether pixels of mattes and cutouts are either opaque or transparent.
        hud: Whether overlays show the time, the level of the sound and the names in a corner.
        frames_csv: A .csv file for a table of the frames; or a folder, for a file that is named
            after the video.
        events: A file for the times at which sources are seen and heard: .json, .csv, .srt, .vtt,
            .txt (Audacity), .edl or .otio; or a folder, for a .json file that is named after the
            video.
        preview: A .jpg or .png file for a contact sheet, up to twelve frames with their overlays;
            or a folder, for a .jpg file that is named after the video.
        report: An .html file for a page with the overlay video, a timeline of levels and masks, the
            settings and the model; or a folder, for a file that is named after the video.
        overwrite: Whether existing outputs are replaced.
        start: Where to start, in seconds.
        end: Where to stop, in seconds; None for the end of the video.
        audio_stream: Position among the audio streams, or a language; None for the default one.
        require_audio: Whether a video without audio is an error.
        allow_partial: Whether to use the readable part of a truncated or damaged video, instead of
            raising an error.
        allow_url: Whether to open an http or https URL directly, without a copy, and whether
            `source` may be a playlist, which opens other files and URLs. By default, only the file
            itself is opened.
        fps: Masks to compute per second, `auto` for those that optical flow cannot predict, or
            `all`; optical flow fills in the others. None for `auto` with a full-size model on a
            CPU, else `all`.
        timing: `fine` to find when sources start and stop, `paper` for the seconds of the paper.
        threshold: Probability from which a pixel belongs to the mask.
        silence_dbfs: Level, in dBFS, below which a second of audio gets empty masks; None to switch
            this off.
        reuse: Largest difference between frames that share a mask, in levels of 0 to 255; None to
            compute every mask.
        smooth: Whether masks are kept steady from frame to frame: smoothed over time, without
            changes that last at most three frames.
        refine: Whether the edges of masks are aligned with edges in the picture.
        codec: `h264`, `h265`, `vp9`, `av1` or `prores` for a video; None for `vp9` in WebM, else
            for `h264`.
        crf: Constant rate factor of a video, lower is better and larger; None for one at which the
            loss is hard to see.
        pix_fmt: Pixel format of a video, such as `yuv422p10le`; None to keep 10 bits and 4:2:2 of
            the source if the codec can, else for `yuv420p`.
        batch_size: Frames per forward pass; None for a number that suits the device and the model.
        model: A name, the path of a checkpoint, or a model from `load_model`; None for the best
            one installed.
        device: `auto`, `cpu`, `cuda` or `mps`; ignored if `model` is already loaded.
        precision: `auto`, `fp32`, `bf16` or `fp16`; ignored if `model` is already loaded.
        progress: Called after each frame, on another thread, with the number of frames written.

    Raises:
        UsageError: The options do not fit the video or the output, or the model does not support a
            word of the text.
        MediaError: The video cannot be read.
        WeightsError: The model cannot be loaded.
        Av2tsamError: The output cannot be written.
    """
    options = SegmentOptions(
        format=format,
        text=text,
        hear=hear,
        vocabulary=vocabulary,
        name=tuple(name),
        names=names,
        style=style,
        color=color,
        opacity=opacity,
        dim=dim,
        feather=feather,
        grow=grow,
        hard=hard,
        hud=hud,
        frames_csv=frames_csv,
        events=events,
        preview=preview,
        report=report,
        overwrite=overwrite,
        start=start,
        end=end,
        audio_stream=audio_stream,
        require_audio=require_audio,
        allow_partial=allow_partial,
        allow_url=allow_url,
        fps=fps,
        timing=timing,
        threshold=threshold,
        silence_dbfs=silence_dbfs,
        reuse=reuse,
        smooth=smooth,
        refine=refine,
        codec=codec,
        crf=crf,
        pix_fmt=pix_fmt,
        batch_size=batch_size,
    )
    if is_url(str(out)):
        raise UsageError(f"{out}: only the command line uploads results; write to a file or folder")
    with staged(input_path(source, allow_url=allow_url)) as path:
        plan = plan_video(path, Path(out), options)
        segmenter = load_for(options, model, device=device, precision=precision)
        return segment_planned(plan, segmenter, progress=progress)


def iter_masks(
    video: str | Path,
    *,
    text: str | None = None,
    hear: Hear | None = None,
    vocabulary: Path | None = None,
    name: Sequence[str] = (),
    start: float = 0.0,
    end: float | None = None,
    audio_stream: int | str | None = None,
    require_audio: bool = False,
    allow_partial: bool = False,
    allow_url: bool = False,
    fps: Rate | None = None,
    timing: Timing = "fine",
    threshold: float = 0.5,
    silence_dbfs: float | None = SILENCE_DBFS,
    reuse: float | None = REUSE_LEVELS,
    smooth: bool = True,
    refine: bool = True,
    batch_size: int | None = None,
    model: str | Path | LoadedModel | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Generator[MaskedFrame, None, None]:
    """Iterate over the frames of a video and their masks, in bounded memory.

    The video is decoded on another thread, which ends when the iterator is exhausted, closed or
    deleted. Errors in the arguments are raised immediately.

    Args:
        video: The video file, or its URL; see `segment_video`.
        text: See `segment_video`, also for the other arguments.
        hear: How to find sound sources.
        vocabulary: The vocabulary file.
        name: The names to use.
        start: Where to start, in seconds.
        end: Where to stop, in seconds.
        audio_stream: The audio stream to use.
        require_audio: Whether a video without audio is an error.
        allow_partial: Whether to use the readable part of a damaged video.
        allow_url: Whether `video` may open other files; see `segment_video`.
        fps: Masks to compute per second, `auto` or `all`.
        timing: `fine` to find when sources start and stop, `paper` for the seconds of the paper.
        threshold: Probability from which a pixel belongs to the mask.
        silence_dbfs: Level below which a second of audio is silent.
        reuse: Largest difference between frames that share a mask.
        smooth: Whether masks are kept steady from frame to frame.
        refine: Whether the edges of masks are aligned with edges in the picture.
        batch_size: Frames per forward pass.
        model: A name, the path of a checkpoint, or a model from `load_model`.
        device: Where to run the model.
        precision: Numeric precision.

    Returns:
        A generator of the frames in order.

    Raises:
        UsageError: See `segment_video`.
        MediaError: See `segment_video`; also during the iteration.
        WeightsError: See `segment_video`.
    """
    options = SegmentOptions(
        text=text,
        hear=hear,
        vocabulary=vocabulary,
        name=tuple(name),
        start=start,
        end=end,
        audio_stream=audio_stream,
        require_audio=require_audio,
        allow_partial=allow_partial,
        allow_url=allow_url,
        fps=fps,
        timing=timing,
        threshold=threshold,
        silence_dbfs=silence_dbfs,
        reuse=reuse,
        smooth=smooth,
        refine=refine,
        batch_size=batch_size,
    )
    with ExitStack() as copies:
        path = copies.enter_context(staged(input_path(video, allow_url=allow_url)))
        plan = plan_reading(path, options, "masks", Path())
        segmenter = load_for(options, model, device=device, precision=precision)
        damage = DamageLog(plan.info.path, allow_partial=options.allow_partial)
        frames = read_scheduled(plan, segmenter, damage)
        return _masked_frames(frames, segmenter, options, damage, copies.pop_all())


def segment_frames(
    frames: Iterable[npt.NDArray[np.uint8]],
    audio: npt.NDArray[np.float32] | npt.NDArray[np.int16] | None = None,
    *,
    times: Iterable[float] | None = None,
    frame_rate: float | Fraction | None = None,
    sample_rate: int | None = None,
    text: str | None = None,
    hear: Hear | None = None,
    vocabulary: Path | None = None,
    name: Sequence[str] = (),
    fps: Rate | None = None,
    timing: Timing = "fine",
    threshold: float = 0.5,
    silence_dbfs: float | None = SILENCE_DBFS,
    reuse: float | None = REUSE_LEVELS,
    smooth: bool = True,
    refine: bool = True,
    batch_size: int | None = None,
    model: str | Path | LoadedModel | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Generator[MaskedFrame, None, None]:
    """Iterate over frames in memory, or from an iterator, and their masks; see `iter_masks`.

    Args:
        frames: Pixels, uint8, (H, W, 3), RGB; iterated on another thread.
        audio: Samples, float32 in [-1, 1] or int16, (n,) or (channels, n), starting at time 0.
            None with a text prompt, or if there is no audio.
        times: Time of each frame in seconds, increasing; or give `frame_rate`.
        frame_rate: Frames per second; or give `times`.
        sample_rate: Audio samples per second.
        text: See `segment_video`, also for the other arguments.
        hear: How to find sound sources.
        vocabulary: The vocabulary file.
        name: The names to use.
        fps: Masks to compute per second, `auto` or `all`.
        timing: `fine` to find when sources start and stop, `paper` for the seconds of the paper.
        threshold: Probability from which a pixel belongs to the mask.
        silence_dbfs: Level below which a second of audio is silent.
        reuse: Largest difference between frames that share a mask.
        smooth: Whether masks are kept steady from frame to frame.
        refine: Whether the edges of masks are aligned with edges in the picture.
        batch_size: Frames per forward pass.
        model: A name, the path of a checkpoint, or a model from `load_model`.
        device: Where to run the model.
        precision: Numeric precision.

    Returns:
        A generator of the frames in order.

    Raises:
        UsageError: See `segment_video`; also if the times or the sample rate are missing, or an
            array has a wrong shape.
        WeightsError: See `segment_video`.
    """
    options = SegmentOptions(
        text=text,
        hear=hear,
        vocabulary=vocabulary,
        name=tuple(name),
        fps=fps,
        timing=timing,
        threshold=threshold,
        silence_dbfs=silence_dbfs,
        reuse=reuse,
        smooth=smooth,
        refine=refine,
        batch_size=batch_size,
    )
    if (times is None) == (frame_rate is None):
        raise UsageError("give either `times` or `frame_rate`")
    if audio is not None and sample_rate is None:
        raise UsageError("`sample_rate` is missing; it belongs to `audio`")
    segmenter = load_for(options, model, device=device, precision=precision)
    windows: Iterator[AudioWindow] = iter(())
    if audio is not None and sample_rate is not None and text is None:
        seconds = split_windows(audio, sample_rate, rate_hz=segmenter.rate_hz)
        windows = segmenter.hear(seconds, timing, silence_dbfs)
    timed = frames_from_arrays(frames, times=times, rate=frame_rate)
    rate = rate_for(options, segmenter.model)
    return _masked_frames(schedule(timed, windows, options, rate), segmenter, options)


def load_for(
    options: SegmentOptions,
    model: str | Path | LoadedModel | None,
    *,
    device: str,
    precision: str,
    compile_frames: int = 0,
) -> Segmenter:
    """Load the parts of a model that these options need.

    Args:
        options: The options.
        model: See `load_model`; or a loaded model.
        device: See `load_model`.
        precision: See `load_model`.
        compile_frames: Number of frames to process; the network is compiled if that saves time. 0
            to not compile it.

    Raises:
        UsageError: The model does not support a word of the text or of the vocabulary, or an option
            needs names but sources have none; or see `load_model`.
        WeightsError: See `load_model`.
    """
    from av2tsam_cli.inference.loading import LoadedModel, load_model

    use, began_s = options.use, time.monotonic()
    if isinstance(model, LoadedModel):
        return _segmenter(model, use or model.use, options)
    loaded = load_model(
        model, use=use, device=device, precision=precision, packed=not compile_frames
    )
    segmenter = _segmenter(loaded, loaded.use, options)
    if compile_frames:
        segmenter.model = _compile_or_pack(loaded, options, compile_frames)
    log.info(
        "model %s on %s in %s, up to %d frames per pass; loaded in %.1f s from %s",
        loaded.name,
        loaded.device,
        loaded.precision,
        batch_size_for(segmenter.model, options),
        time.monotonic() - began_s,
        loaded.path,
    )
    return segmenter


def _segmenter(model: LoadedModel, use: Use, options: SegmentOptions) -> Segmenter:
    """Return the segmenter that runs a model with these options."""
    from av2tsam_cli.inference.segmenter import Segmenter

    if use != "words":
        return Segmenter(model, options.text)
    from av2tsam_cli.words.segmenter import WordsSegmenter

    return WordsSegmenter(
        model, options.vocabulary, options.name, silence_dbfs=options.silence_dbfs
    )


def _compile_or_pack(model: LoadedModel, options: SegmentOptions, frames: int) -> LoadedModel:
    """Compile a network if that saves time for this number of frames, else pack its weights."""
    from av2tsam_cli.inference.loading import pack_weights
    from av2tsam_cli.inference.segmenter import compile_network

    min_frames = model.compile_from
    if min_frames is not None and frames >= min_frames:
        return compile_network(model, batch_size_for(model, options))
    log.warning(
        "not compiled: %s",
        "this would not make the network faster on this device"
        if min_frames is None
        else f"this saves time from {min_frames} frames on",
    )
    pack_weights(model)
    return model


def segment_planned(
    plan: SegmentPlan, segmenter: Segmenter, *, progress: Callable[[int], None] | None = None
) -> SegmentResult:
    """Segment one planned video; if this fails, no partial outputs remain."""
    began_s = time.monotonic()
    damage = DamageLog(plan.info.path, allow_partial=plan.options.allow_partial)
    writers = open_writers(plan, segmenter, damage)
    tally = Tally()
    log.info("%s", plan.describe())

    def write(frames: Iterator[MaskedFrame]) -> None:
        with ExitStack() as opened:
            for writer in reversed(writers):  # the main output is completed first
                opened.enter_context(writer)
            for each in frames:
                for writer in writers:
                    writer.write(each)
                tally.add(each.summary)
                if progress is not None:
                    progress(tally.frames)
            check_any(plan, tally)

    run_stages(plan, segmenter, read_scheduled(plan, segmenter, damage), write)
    damage.report()
    return describe_result(
        plan, segmenter, writers, tally, damage, wall_s=time.monotonic() - began_s
    )


def run_stages(
    plan: SegmentPlan,
    segmenter: Segmenter,
    frames: Generator[ScheduledFrame, None, None],
    write: Callable[[Iterator[MaskedFrame]], None],
    *,
    stop_s: float = float("inf"),
    announce: bool = True,
) -> None:
    """Compute the masks of scheduled frames on this thread, and write them on another.

    Args:
        plan: The plan.
        segmenter: Runs the model.
        frames: All frames in order; decoded on a third thread.
        write: Iterates over the frames with their masks.
        stop_s: Time, in seconds of the presentation, up to which masks are needed; `write` also
            gets some later frames.
        announce: Whether to log the estimated time if it is long.
    """
    from av2tsam_cli.inference.device import own_stream, torch_threads

    model, options, large = segmenter.model, plan.options, are_large(plan)

    def consume(computed: Iterator[ComputedBatch]) -> None:
        with torch_threads(1), own_stream(model.device):
            interpolated = logits_over_time(when_done(computed))
            write(
                masked(each, logits, segmenter, options)
                for each, logits in smoothed(interpolated, segmenter, options)
            )

    with (
        torch_threads(model.cpu_threads),
        run_behind(consume, depth=0 if large else 1, name="write") as put,
        closing(compute(frames, segmenter, options, large=large, stop_s=stop_s)) as computed,
    ):
        announced = not announce
        times = _StageTimes()
        for batch in computed:
            times.add_network(batch)
            put(batch)
            times.add_waiting()
            if batch.seconds_per_mask is not None and not announced:
                announced = True
                _announce_time(plan, model, batch.seconds_per_mask)
    times.add_waiting()  # until the writer is done
    log.info("%s: %s", plan.info.path, times)


def check_any(plan: SegmentPlan, tally: Tally) -> None:
    """Check that a video has frames.

    Raises:
        MediaError: The video has no frames.
    """
    if not tally.frames:
        raise MediaError(f"{plan.info.path}: has no frame between `start` and `end`")


def describe_result(
    plan: SegmentPlan,
    segmenter: Segmenter,
    writers: Sequence[Writer],
    tally: Tally,
    damage: DamageLog,
    *,
    wall_s: float,
) -> SegmentResult:
    """Return the result of a plan whose outputs have been written."""
    model, options = segmenter.model, plan.options
    return SegmentResult(
        input=plan.info.path,
        text=options.text,
        hear=segmenter.route,
        outputs=tuple(path for writer in writers for path in writer.outputs),
        format=plan.format,
        start=options.start,
        rate=plan.video.rate,
        size=plan.size,
        has_audio=plan.audio is not None,
        silent_s=tally.silent_s(plan.video.rate) if options.text is None else None,
        frames=tally.frames,
        frames_computed=tally.computed,
        duration_s=tally.duration_s(plan.video.rate),
        model=model.name,
        device=model.device.type,
        precision=model.precision,
        fps=str(rate_for(options, model)),
        pix_fmt=None if plan.encoding is None else plan.encoding.pixel_format,
        wall_s=wall_s,
        frames_with_mask=tally.with_mask,
        mean_area=tally.area / tally.frames,
        timing=options.timing if options.text is None else None,
        smooth=options.smooth,
        refine=options.refine,
        sources=tally.summaries(),
        damage=damage.found,
    )


def open_writers(plan: SegmentPlan, segmenter: Segmenter, damage: DamageLog) -> list[Writer]:
    """Return the writers of the main output and of the additional files."""
    options = plan.options
    writers: list[Writer] = [
        open_writer(
            plan.output,
            plan.format,
            info=plan.info,
            video=plan.video,
            audio=plan.audio,
            encoding=plan.encoding,
            zero_s=plan.zero_s,
            start_s=options.start,
            stop_s=options.end,
            overwrite=options.overwrite,
            threads=codec_threads(plan, segmenter.model),
            damage=damage,
            look=options,
            record=record_of(
                plan.info.path,
                options,
                plan.format,
                plan.output,
                sides=plan.sides,
                model=segmenter.model.identity,
            ),
        )
    ]
    if path := plan.sides.get("frames_csv"):
        before_s = options.start + plan.zero_s
        first = count_frames_before(plan.info.path, plan.video.index, before_s)
        writers.append(FrameTable(path, first_frame=first, overwrite=options.overwrite))
    if path := plan.sides.get("events"):
        writers.append(
            EventList(
                path,
                source=plan.info.path,
                rate=plan.video.rate,
                timecode=read_timecode(plan.info.path, plan.video.index),
                overwrite=options.overwrite,
            )
        )
    if path := plan.sides.get("preview"):
        writers.append(
            ContactSheet(
                path,
                title=plan.info.path.name,
                video=plan.video,
                look=options,
                overwrite=options.overwrite,
            )
        )
    if path := plan.sides.get("report"):
        writers.append(
            Report(
                path,
                info=plan.info,
                video=plan.video,
                options=options,
                kind=plan.format,
                encoding=plan.encoding,
                outputs=[each for writer in writers for each in writer.outputs],
                model=_model_card(segmenter.model),
                overwrite=options.overwrite,
            )
        )
    return writers


def _model_card(model: LoadedModel) -> dict[str, object]:
    """Return what is known about a model, with its device and precision."""
    from av2tsam_cli.hub.describe import describe

    known = describe(model.name)
    parameters, card = known.get("parameters"), known.get("card")
    return {
        "name": model.name,
        **{key: known[key] for key in ("purpose", "licence", "unverified") if known.get(key)},
        **({"parameters": parameters["total"]} if isinstance(parameters, dict) else {}),
        "device": model.device.type,
        "precision": model.precision,
        **(card if isinstance(card, dict) else {}),
    }


def _announce_time(plan: SegmentPlan, model: LoadedModel, mask_s: float) -> None:
    """Log the estimated time for a video if it is long, or if masks are skipped by default."""
    fps, frames, rate = rate_for(plan.options, model), plan.frames, plan.video.rate
    skips_by_default = fps == "auto" and plan.options.fps is None
    is_long = isinstance(fps, str) and frames is not None and frames * mask_s >= LONG_RUN_S
    if skips_by_default or is_long:
        estimate = time_estimate(frames, rate, mask_s, skips=fps == "auto")
        log.warning("%s: %s on %s: %s", plan.info.path, model.name, model.device.type, estimate)


def time_estimate(frames: int | None, rate: Fraction | None, mask_s: float, *, skips: bool) -> str:
    """Describe the estimated time for a video.

    Args:
        frames: Number of frames to process; None if unknown.
        rate: Frames per second of the video; None if unknown.
        mask_s: Seconds per mask.
        skips: Whether masks that optical flow can predict are skipped.
    """
    each = f"{mask_s:.1f} s per mask"
    note = "; masks that optical flow can predict are not computed (`fps` auto)" if skips else ""
    if frames is None or rate is None:
        return each + note
    longest = _in_words(frames * mask_s)
    shortest = _in_words(frames * mask_s / max(1.0, rate * LONGEST_S))
    between = longest if shortest == longest else f"{shortest} to {longest}"
    if skips:
        return f"{each}, so {between}{note}"
    return f"{each}, so about {longest}; with `fps` auto, {between}"


def _in_words(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.0f} h"


def _masked_frames(
    frames: Generator[ScheduledFrame, None, None],
    segmenter: Segmenter,
    options: SegmentOptions,
    damage: DamageLog | None = None,
    copies: ExitStack | None = None,
) -> Generator[MaskedFrame, None, None]:
    """Yield the frames with masks; only decoding runs on another thread.

    Closes `copies` at the end.
    """
    with copies or nullcontext(), closing(compute(frames, segmenter, options)) as computed:
        filled = logits_over_time(when_done(computed))
        for each, logits in smoothed(filled, segmenter, options):
            yield masked(each, logits, segmenter, options)
    if damage is not None:
        damage.report()


class _StageTimes:
    """Time that the main thread spent on the network, or waiting for other threads."""

    def __init__(self) -> None:
        self.last_s = time.monotonic()
        self.network_s = self.frames_s = self.writer_s = 0.0

    def add_network(self, batch: ComputedBatch) -> None:
        """Add the time since the last batch, for the network and for waiting for its frames."""
        now_s = time.monotonic()
        keys = sum(each.key for each, _ in batch.frames)
        network_s = (batch.seconds_per_mask or 0.0) * keys
        self.network_s += network_s
        self.frames_s += now_s - self.last_s - network_s
        self.last_s = now_s

    def add_waiting(self) -> None:
        """Add the time since the network ended, for waiting for the writer."""
        now_s = time.monotonic()
        self.writer_s += now_s - self.last_s
        self.last_s = now_s

    def __str__(self) -> str:
        return (
            f"{self.network_s:.1f} s for the network, {self.frames_s:.1f} s waiting for frames, "
            f"{self.writer_s:.1f} s waiting for the writer"
        )


@dataclass
class Tally:
    """Counts over the frames of one video."""

    frames: int = 0
    computed: int = 0
    with_mask: int = 0
    area: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0
    last_duration_s: float | None = None
    last_silent: bool = False
    silence_s: float = 0.0
    """Duration of the silent frames before the last frame."""
    areas: dict[str, list[float]] = field(default_factory=dict)
    """Number of frames and sum of areas for each name."""

    def add(self, frame: FrameSummary) -> None:
        """Count one frame."""
        if self.last_silent:
            self.silence_s += frame.time_s - self.last_s
        self.last_silent = frame.origin == "silent"
        self.last_s, self.last_duration_s = frame.time_s, frame.duration_s
        self.first_s = self.first_s if self.frames else self.last_s
        self.frames += 1
        self.computed += frame.origin == "computed"
        self.with_mask += frame.area_px > 0
        self.area += frame.area
        for name, share in frame.named_areas():
            count = self.areas.setdefault(name, [0, 0.0])
            count[0] += 1
            count[1] += share

    def summaries(self) -> tuple[SourceSummary, ...]:
        """Return the named sources, most frames first."""
        found = sorted(self.areas.items(), key=lambda item: -item[1][0])
        return tuple(SourceSummary(name, int(n), area / n) for name, (n, area) in found)

    def silent_s(self, rate: Fraction | None) -> float:
        """Return the duration of the frames without audible sound in seconds."""
        last_s = self.duration_s(rate) - (self.last_s - self.first_s)
        return self.silence_s + (last_s if self.last_silent else 0.0)

    def duration_s(self, rate: Fraction | None) -> float:
        """Return the seconds from the start of the first frame to the end of the last one."""
        if self.last_duration_s is not None:
            return self.last_s - self.first_s + self.last_duration_s
        if self.frames > 1:  # assume the average duration for the last frame
            return (self.last_s - self.first_s) * self.frames / (self.frames - 1)
        return float(1 / rate) if rate else 0.0
