"""The page that joins the stages: a video in, its sounding objects out, or what a phrase names.

    video file ─┬─ frames ──┐
                └─ windows ─┴─ moments ─ batches ─ inputs ║ logits ║ masks ─ writer

Each `║` is a bounded queue between two threads: decoding and shrinking, the network, and drawing
and encoding go on at once, and memory depends on the batch, never on the length of the video. The
network is on the thread that called: OpenMP then has no workers but its own, and memory that is
freed can be used again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np

from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.media.audio import choose_audio, read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.options import either
from av2tsam_cli.outputs.mp4 import CONTAINERS
from av2tsam_cli.outputs.writers import Writer, check_target, open_writer
from av2tsam_cli.segment_options import Format, SegmentOptions
from av2tsam_cli.threads import run_ahead, run_behind
from av2tsam_cli.timeline.schedule import (
    Moment,
    batches,
    hear,
    logits_over_time,
    look,
    mark_keys,
    mark_repeats,
)
from av2tsam_cli.values import AudioStream, AudioWindow, MediaInfo, VideoStream

if TYPE_CHECKING:  # torch takes seconds to import; what is wrong with a path is said before that
    import torch

    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter
    from av2tsam_cli.masks import BoolArray

Seen: TypeAlias = "tuple[Moment, torch.Tensor | None]"
"""A frame with the logits (1, h, w) that the network made for it; None where it made none."""

SMALL_PICTURE = 1280 * 720
"""Pixels up to which one thread decodes, and one encodes, faster than a light network runs."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentPlan:
    """One video with everything that can be known and checked before the work."""

    info: MediaInfo
    """What the file holds."""
    video: VideoStream
    """The stream that is looked at."""
    audio: AudioStream | None
    """The stream that is listened to; None where there is no sound: every mask is empty, but for
    those of a phrase."""
    zero_s: float
    """Start of the presentation on the file's own clock, in seconds."""
    format: Format
    """What to write."""
    target: Path
    """The video file to write, or the folder in which a folder of PNGs is made."""
    options: SegmentOptions
    """What to make of it."""

    @property
    def end_s(self) -> float | None:
        """Where the pictures end, in seconds of the presentation; None where nobody says."""
        if self.video.duration_s is not None:
            return self.video.start_s - self.zero_s + self.video.duration_s
        return self.info.duration_s

    @property
    def frames(self) -> int | None:
        """About how many frames there will be; None where the file does not say."""
        if self.end_s is None or self.video.rate is None:
            return self.video.frames or None
        stop_s = self.end_s if self.options.end is None else min(self.options.end, self.end_s)
        return max(1, round((stop_s - self.options.start) * self.video.rate))


@dataclass(frozen=True)
class SegmentResult:
    """What was made of one video."""

    input: Path
    """The video."""
    text: str | None
    """What was looked for; None where it was what sounds."""
    outputs: tuple[Path, ...]
    """The file or the folder that was written."""
    frames: int
    """Frames written."""
    frames_computed: int
    """Frames whose mask the network made; the others follow them, repeat them or are silent."""
    duration_s: float
    """Seconds of video that they cover."""
    model: str
    """Name of the model."""
    device: str
    """`cpu`, `cuda` or `mps`."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    wall_s: float
    """Seconds that it took, without loading the model."""
    frames_with_mask: int
    """Frames whose mask is not empty."""
    mean_area: float
    """Share of the picture that the mask covers, mean over all frames, 0 to 1."""


def segment_video(
    source: str | Path,
    out: str | Path,
    *,
    model: str | Path | LoadedModel | None = None,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> SegmentResult:
    """Find what is making the sound in a video, or what a phrase names, and write it out.

    Args:
        source: The video file.
        out: A video file (.mp4, .mov, .mkv, .webm) for an overlay video with the original sound;
            for PNGs, the folder in which a folder named like the input is made.
        model: A name, a checkpoint's path, or a model from `load_model`; the best installed one
            where None.
        device: `auto`, `cpu`, `cuda` or `mps`; where `model` is not loaded yet.
        precision: `auto`, `fp32`, `bf16` or `fp16`; where `model` is not loaded yet.
        progress: Called with the number of frames done, after each, on another thread.
        **options: What to make and how: the fields of `SegmentOptions`; `text="the dog"` looks for
            a phrase.

    Raises:
        UsageError: The options do not fit the video or the output, or the model does not know a
            word.
        MediaError: The video cannot be read.
        WeightsError: The model cannot be loaded.
    """
    plan = plan_video(Path(source), Path(out), SegmentOptions(**options))
    from av2tsam_cli.inference.loading import LoadedModel

    if not isinstance(model, LoadedModel):
        model = load_for(plan.options, model, device=device, precision=precision)
    return segment_planned(plan, model, progress=progress)


def load_for(
    options: SegmentOptions,
    model: str | Path | None,
    *,
    device: str,
    precision: str,
    compile_frames: int = 0,
) -> LoadedModel:
    """Load what of a model these options need; arguments as of `load_model`.

    With `compile_frames`, the number of frames to come, the network is compiled if that pays.

    Raises:
        UsageError: Also where the model does not know a word of the phrase.
        WeightsError: As of `load_model`.
    """
    from av2tsam_cli.inference.loading import load_model, pack_weights
    from av2tsam_cli.inference.segmenter import compile_network

    text_only = options.text is not None
    packed = not compile_frames
    loaded = load_model(
        model, device=device, precision=precision, text_only=text_only, packed=packed
    )
    if options.text is not None:
        loaded.tokenizer(options.text)
    if not compile_frames:
        return loaded
    least = loaded.compile_from
    if least is not None and compile_frames >= least:
        return compile_network(loaded, options.batch_size or loaded.batch_size)
    log.warning(
        "not compiled: %s",
        "on this device the network is faster as it is"
        if least is None
        else f"that pays from {least} frames on",
    )
    pack_weights(loaded)
    return loaded


def plan_video(source: Path, out: Path, options: SegmentOptions) -> SegmentPlan:
    """Find out everything about one video and its output that can be known before the work.

    Raises:
        UsageError: The options do not fit the video or the output.
        MediaError: The video cannot be read, or has no sound though `require_audio` is set.
    """
    kind, target = place_output(source, out, options.format)
    info = probe(source)
    check_target(target, kind, source=source, overwrite=options.overwrite)
    audio = choose_audio(info, options.audio_stream)
    if audio is None and options.require_audio:
        raise MediaError(f"{source}: has no sound; drop --require-audio to get empty masks")
    video = info.video[0]
    plan = SegmentPlan(
        info=info,
        video=video,
        audio=audio,
        zero_s=clock_zero(info, video, audio),
        format=kind,
        target=target,
        options=options,
    )
    if plan.end_s is not None and options.start >= plan.end_s:
        raise UsageError(
            f"{source}: --start {options.start:g} s lies after its end ({plan.end_s:g} s)"
        )
    return plan


def place_output(source: Path, out: Path, wanted: Format | None) -> tuple[Format, Path]:
    """What to write and where: a video file, or the folder in which a folder of PNGs is made.

    Raises:
        UsageError: The output's name does not fit what is to be written.
    """
    suffixes = either(list(CONTAINERS))
    names_video = out.suffix.lower() in CONTAINERS and not out.is_dir()
    if names_video:
        if wanted in {"masks", "overlays"}:
            raise UsageError(f"{out}: `format` {wanted} needs a folder, not a video file")
        return "video", out
    if out.suffix and not out.is_dir() and wanted in {None, "video"}:
        raise UsageError(f"{out}: cannot write {out.suffix}; use {suffixes}")
    if wanted is None:
        raise UsageError(
            f"{out}: is a folder; set `format` to video, masks or overlays, or name a video file "
            f"({suffixes})"
        )
    return wanted, out / f"{source.stem}.mp4" if wanted == "video" else out


def segment_planned(
    plan: SegmentPlan, model: LoadedModel, *, progress: Callable[[int], None] | None = None
) -> SegmentResult:
    """Do the work of one plan; what goes wrong on the way leaves nothing behind."""
    began_s = time.monotonic()
    tally, writer = _Tally(), _open_writer(plan, model)

    def write(seen: Iterator[Seen]) -> None:
        with writer, closing(_masked(plan, model, seen)) as masked:
            for moment, mask in masked:
                writer.write(moment.frame, mask)
                tally.add(moment, mask)
                if progress is not None:
                    progress(tally.frames)
            if not tally.frames:
                raise MediaError(f"{plan.info.path}: has no frame between --start and --end")

    with (
        run_behind(write, depth=_batch_size(plan, model), name="write") as put,
        closing(_seen(plan, model)) as seen,
    ):
        for one in seen:
            put(one)
    return SegmentResult(
        input=plan.info.path,
        text=plan.options.text,
        outputs=writer.outputs,
        frames=tally.frames,
        frames_computed=tally.computed,
        duration_s=tally.duration_s(plan.video.rate),
        model=model.name,
        device=model.device.type,
        precision=model.precision,
        wall_s=time.monotonic() - began_s,
        frames_with_mask=tally.with_mask,
        mean_area=tally.area / tally.frames,
    )


def masked_frames(
    plan: SegmentPlan, model: LoadedModel
) -> Generator[tuple[Moment, BoolArray], None, None]:
    """Every frame of a plan in order, with its mask (H, W) at the frame's own size."""
    with closing(_seen(plan, model)) as seen:
        yield from _masked(plan, model, seen)


def _masked(
    plan: SegmentPlan, model: LoadedModel, seen: Iterable[Seen]
) -> Generator[tuple[Moment, BoolArray], None, None]:
    """Logits over time, and masks at the frames' own size."""
    from av2tsam_cli.inference.device import own_threads
    from av2tsam_cli.masks import native_masks

    threshold, resize = plan.options.threshold, model.network.text_sam.resize
    with own_threads(1):
        for moment, logits in logits_over_time(seen):
            height, width = moment.frame.rgb.shape[:2]
            if logits is None:
                mask = np.zeros((height, width), dtype=np.bool_)
            else:
                (mask,) = native_masks(logits[None], [(height, width)], threshold, resize=resize)
            yield moment, mask


@dataclass(frozen=True)
class _Batch:
    """Consecutive frames and what the network needs of the keys among them."""

    moments: list[Moment]
    inputs: FrameInputs | None = field(repr=False)
    """None where there is no key."""


def _prepared(plan: SegmentPlan, segmenter: Segmenter, size: int) -> Generator[_Batch, None, None]:
    """Decode, join with the sound, group, and shrink what the network will look at."""
    from av2tsam_cli.inference.device import own_threads

    with own_threads(1):
        for group in batches(_moments(plan, segmenter), size):
            keys = [moment.frame.rgb for moment in group if moment.key]
            yield _Batch(group, segmenter.prepare(keys) if keys else None)


def _moments(plan: SegmentPlan, segmenter: Segmenter) -> Iterator[Moment]:
    """Every frame of a plan with the sound that serves it, unless a phrase does."""
    options = plan.options
    span = _Span(zero_s=plan.zero_s, start_s=options.start, stop_s=options.end)
    threads = _codec_threads(plan, segmenter.model)
    frames = read_frames(plan.info, stream=plan.video, threads=threads, **span)
    if options.text is not None:
        moments = look(frames)
    else:
        windows: Iterable[AudioWindow] = ()
        if plan.audio is not None:
            windows = read_windows(plan.info, rate_hz=segmenter.rate_hz, stream=plan.audio, **span)
        moments = hear(frames, windows, options.silence_dbfs)
    return mark_repeats(mark_keys(moments, options.fps), options.reuse)


def _batch_size(plan: SegmentPlan, model: LoadedModel) -> int:
    return model.compiled_for or plan.options.batch_size or model.batch_size


def _seen(plan: SegmentPlan, model: LoadedModel) -> Generator[Seen, None, None]:
    """Run the network: every frame in order, with logits (1, h, w) where it is a key."""
    from av2tsam_cli.inference.device import own_threads
    from av2tsam_cli.inference.segmenter import Segmenter

    segmenter, size = Segmenter(model, plan.options.text), _batch_size(plan, model)
    prepared = run_ahead(_prepared(plan, segmenter, size), depth=1, name="decode")
    with own_threads(model.cpu_threads), closing(prepared):
        for batch in prepared:
            heard = [moment.window for moment in batch.moments if moment.key and moment.window]
            rows = iter(() if batch.inputs is None else segmenter.logits(batch.inputs, heard))
            for moment in batch.moments:
                yield moment, next(rows) if moment.key else None


class _Span(TypedDict):
    """The part of a file to read, as both readers take it."""

    zero_s: float
    start_s: float
    stop_s: float | None


def _codec_threads(plan: SegmentPlan, model: LoadedModel) -> int:
    """Threads of the decoder and of the encoder; 0 for as many as suit them.

    Beside a light network on the CPU more of them only take its cores away.
    """
    small = plan.video.width * plan.video.height <= SMALL_PICTURE
    return 1 if small and model.light and model.device.type == "cpu" else 0


def _open_writer(plan: SegmentPlan, model: LoadedModel) -> Writer:
    return open_writer(
        plan.target,
        plan.format,
        info=plan.info,
        video=plan.video,
        audio=plan.audio,
        zero_s=plan.zero_s,
        start_s=plan.options.start,
        stop_s=plan.options.end,
        overwrite=plan.options.overwrite,
        threads=_codec_threads(plan, model),
    )


@dataclass
class _Tally:
    """Counts over the frames of one video."""

    frames: int = 0
    computed: int = 0
    with_mask: int = 0
    area: float = 0.0
    first_s: float = 0.0
    last_s: float = 0.0

    def add(self, moment: Moment, mask: BoolArray) -> None:
        """Count one frame."""
        covered = int(np.count_nonzero(mask))
        self.last_s = moment.frame.time_s
        self.first_s = self.first_s if self.frames else self.last_s
        self.frames += 1
        self.computed += moment.key
        self.with_mask += covered > 0
        self.area += covered / mask.size

    def duration_s(self, rate: Fraction | None) -> float:
        """Seconds from the first frame to the end of the last."""
        if self.frames > 1:  # the last frame lasts as long as the others do on average
            return (self.last_s - self.first_s) * self.frames / (self.frames - 1)
        return float(1 / rate) if rate else 0.0
