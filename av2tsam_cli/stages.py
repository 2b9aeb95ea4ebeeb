"""The stages between a video and its masks: read, schedule, prepare, compute, enlarge.

Functions from iterators to iterators; `pipeline` decides on which threads they run.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile
from typing import TYPE_CHECKING

from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import check_unchanged
from av2tsam_cli.plan import SegmentPlan
from av2tsam_cli.segment_options import Rate, SegmentOptions
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.timeline.cuts import number_shots
from av2tsam_cli.timeline.schedule import (
    CLOCK_SLACK_S,
    KeyFrame,
    ScheduledFrame,
    add_motion,
    batches,
    mark_keys,
    mark_repeats,
    pair_with_audio,
    without_audio,
)
from av2tsam_cli.timeline.steady import LONGEST_GAP
from av2tsam_cli.values import AudioWindow, Frame, MaskedFrame, Origin, SourceMasks

if TYPE_CHECKING:
    import torch

    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter

SMALL_FRAME_PX = 1280 * 720
"""Pixels up to which one thread decodes, and one encodes, faster than a light network runs."""
LARGE_FRAME_PX = 2560 * 1440
"""Pixels from which on as few frames as possible are held: 4K in RGB takes 24 MiB per frame."""
FRAMES_AHEAD = 5
"""Frames that are decoded ahead of a network that gets one at a time."""
BATCHES_AHEAD = 2
"""Batches that are prepared ahead of the network."""
CPU_BATCH_BYTES, GPU_BATCH_BYTES = 1 << 26, 1 << 28
"""Most bytes of frames in a batch, unless its size is set: batches of large frames gain little."""
LARGE_FRAME_THREADS = 4
"""Most threads of a decoder or an encoder of large frames: each holds several."""


def read_scheduled(
    plan: SegmentPlan, segmenter: Segmenter, damage: DamageLog
) -> Generator[ScheduledFrame, None, None]:
    """Decode the frames of a video and, without a text prompt, its audio.

    Raises:
        MediaError: They cannot be decoded, or the file has changed since it was planned.
    """
    frames = read_pictures(plan, segmenter, damage, plan.options.start)
    windows = listen(plan, segmenter, damage)
    yield from schedule(frames, windows, plan.options, rate_for(plan.options, segmenter.model))
    check_unchanged(plan.info)


def read_pictures(
    plan: SegmentPlan, segmenter: Segmenter, damage: DamageLog, start_s: float
) -> Iterator[Frame]:
    """Decode the frames of a video from a time on, in seconds of the presentation."""
    return read_frames(
        plan.info,
        stream=plan.video,
        zero_s=plan.zero_s,
        start_s=start_s,
        stop_s=plan.options.end,
        threads=codec_threads(plan, segmenter.model),
        deep=plan.deep,
        damage=damage,
    )


def listen(plan: SegmentPlan, segmenter: Segmenter, damage: DamageLog) -> Iterator[AudioWindow]:
    """Decode the audio of a video, unless there is a text prompt, and prepare it for the model."""
    options = plan.options
    if plan.audio is None or options.text is not None:
        return iter(())
    windows = read_windows(
        plan.info,
        rate_hz=segmenter.rate_hz,
        stream=plan.audio,
        zero_s=plan.zero_s,
        start_s=options.start,
        stop_s=options.end,
        damage=damage,
    )
    return segmenter.hear(windows, options.timing, options.silence_dbfs)


def schedule(
    frames: Iterable[Frame],
    windows: Iterator[AudioWindow],
    options: SegmentOptions,
    rate: Rate,
    from_s: float = float("-inf"),
) -> Generator[ScheduledFrame, None, None]:
    """Decide for which frames a mask is computed, and from which window of audio.

    With the rate `auto`, all frames with a prompt are marked as key frames for now.

    Args:
        frames: All frames, in order.
        windows: The sound.
        options: The options.
        rate: Masks per second.
        from_s: Frames before this only show where shots begin, and are left out.
    """
    frames = dropwhile(lambda each: each.time_s < from_s - CLOCK_SLACK_S, number_shots(frames))
    if options.text is not None:
        scheduled = without_audio(frames)
    else:
        scheduled = pair_with_audio(frames, windows, options.silence_dbfs)
    if rate == "all":
        return mark_repeats(scheduled, options.reuse)
    if rate == "auto":
        return add_motion(scheduled)
    return add_motion(mark_repeats(mark_keys(scheduled, rate), options.reuse))


def rate_for(options: SegmentOptions, model: LoadedModel) -> Rate:
    """Return the masks to compute per second: as set, or what suits the model and the device."""
    if options.fps is not None:
        return options.fps
    return "all" if model.light or model.device.type != "cpu" else "auto"


@dataclass(frozen=True)
class ComputedBatch:
    """Consecutive frames with the logits of the key frames, which a GPU may still compute."""

    frames: deque[tuple[ScheduledFrame, torch.Tensor | None]]
    """All frames in order, key frames with logits (K, h, w)."""
    wait: Callable[[], None]
    """Waits until the logits are computed."""
    seconds_per_mask: float | None
    """Time that the network took for each key frame; None without."""


def compute(
    frames: Generator[ScheduledFrame, None, None],
    segmenter: Segmenter,
    options: SegmentOptions,
    *,
    large: bool = False,
    stop_s: float = float("inf"),
) -> Generator[ComputedBatch, None, None]:
    """Run the network on this thread, for frames that are decoded on another.

    Args:
        frames: All frames in order.
        segmenter: Runs the model.
        options: The options.
        large: Whether to hold as few frames as possible, because they are large.
        stop_s: The masks of frames before this are needed, and of no more than these depend on.
    """
    needed = _Needed(stop_s)
    if rate_for(options, segmenter.model) == "auto":
        ahead = 1 if large else FRAMES_AHEAD
        return compute_where_needed(frames, segmenter, options, ahead, needed)
    groups = needed.groups(grouped(frames, segmenter.model, options))
    return compute_batches(groups, segmenter, 1 if large else BATCHES_AHEAD)


class _Needed:
    """Tells when no frame before a time depends on the frames that follow."""

    def __init__(self, stop_s: float) -> None:
        self.stop_s, self.after = stop_s - CLOCK_SLACK_S, 0

    def groups(self, groups: Iterator[list[ScheduledFrame]]) -> Iterator[list[ScheduledFrame]]:
        """Yield groups of frames while they are needed."""
        for group in groups:
            ended = self.ends_with(group)
            yield group
            if ended:
                return

    def ends_with(self, group: Iterable[ScheduledFrame]) -> bool:
        """Return whether nothing after a group of frames, the next in order, is needed.

        Smoothing looks LONGEST_GAP frames ahead, and masks are interpolated up to the next one that
        is computed or reused.
        """
        ended = False
        for each in group:
            self.after += each.frame.time_s >= self.stop_s
            if self.after >= LONGEST_GAP:
                ended = ended or each.key or each.repeats or each.segment is None
        return ended


def compute_where_needed(
    frames: Generator[ScheduledFrame, None, None],
    segmenter: Segmenter,
    options: SegmentOptions,
    ahead: int,
    needed: _Needed,
) -> Generator[ComputedBatch, None, None]:
    """Run the network where masks that are predicted from earlier frames cannot be trusted."""
    from av2tsam_cli.inference.device import torch_threads
    from av2tsam_cli.masks import logit
    from av2tsam_cli.timeline.trust import KeyFrameChooser

    chooser = KeyFrameChooser(logit(options.threshold), options.reuse)
    decode = partial(torch_threads, 1)
    with closing(run_ahead(frames, depth=ahead, name="decode", context=decode)) as decoded:
        for each in decoded:
            chosen = chooser.choose(each)
            batch = compute_batch(segmenter, prepare(segmenter, [chosen]))
            for frame, logits in batch.frames:
                if logits is not None:
                    chooser.computed(KeyFrame(frame, logits))
            yield batch
            if needed.ends_with([chosen]):
                return


def compute_batches(
    groups: Iterator[list[ScheduledFrame]], segmenter: Segmenter, ahead: int
) -> Generator[ComputedBatch, None, None]:
    """Run the network on batches of key frames, which are prepared on another thread."""
    from av2tsam_cli.inference.device import torch_threads

    def prepared() -> Generator[Batch, None, None]:
        # Unlike a loop, `map` does not hold a batch while the next one is made.
        yield from map(partial(prepare, segmenter), groups)

    decode = partial(torch_threads, 1)
    with closing(run_ahead(prepared(), depth=ahead, name="decode", context=decode)) as ready:
        yield from map(partial(compute_batch, segmenter), ready)


def grouped(
    frames: Generator[ScheduledFrame, None, None], model: LoadedModel, options: SegmentOptions
) -> Iterator[list[ScheduledFrame]]:
    """Group frames into batches: of the size that is set, else not too large in bytes."""
    most_bytes = CPU_BATCH_BYTES if model.device.type == "cpu" else GPU_BATCH_BYTES
    is_set = model.compiled_for or options.batch_size
    return batches(frames, batch_size_for(model, options), None if is_set else most_bytes)


@dataclass(frozen=True)
class Batch:
    """Consecutive frames, and what the network needs for the key frames among them."""

    frames: list[ScheduledFrame]
    inputs: FrameInputs | None = field(repr=False)
    """None without key frames."""

    @property
    def keys(self) -> int:
        """Number of key frames."""
        return sum(each.key for each in self.frames)


def prepare(segmenter: Segmenter, frames: list[ScheduledFrame]) -> Batch:
    """Resize the key frames among consecutive frames for the network."""
    keys = [each.frame.rgb for each in frames if each.key]
    return Batch(frames, segmenter.prepare(keys) if keys else None)


def compute_batch(segmenter: Segmenter, batch: Batch) -> ComputedBatch:
    """Run the network on the key frames of a batch."""
    from av2tsam_cli.inference.device import mark_work, torch_threads

    began_s = time.monotonic()
    rows: Iterator[torch.Tensor] = iter(())
    if batch.inputs is not None:
        windows = [each.window for each in batch.frames if each.key and each.window is not None]
        with torch_threads(segmenter.model.cpu_threads):
            rows = iter(segmenter.source_logits(batch.inputs, windows))
    seconds = time.monotonic() - began_s
    return ComputedBatch(
        frames=deque((each, next(rows) if each.key else None) for each in batch.frames),
        wait=mark_work(segmenter.model.device),
        seconds_per_mask=seconds / batch.keys if batch.keys else None,
    )


def when_done(
    batches: Iterator[ComputedBatch],
) -> Iterator[tuple[ScheduledFrame, torch.Tensor | None]]:
    """Yield the frames of each batch once its logits are computed; they leave the batch."""
    for batch in batches:
        batch.wait()
        while batch.frames:
            yield batch.frames.popleft()


def smoothed(
    frames: Iterable[tuple[ScheduledFrame, torch.Tensor | None]],
    segmenter: Segmenter,
    options: SegmentOptions,
) -> Iterable[tuple[ScheduledFrame, torch.Tensor | None]]:
    """Keep the logits of all frames in order steady over time, unless that is switched off."""
    from av2tsam_cli.masks import logit
    from av2tsam_cli.timeline.steady import steady_logits

    if not options.smooth:
        return frames
    return steady_logits(frames, segmenter.names_of, logit(options.threshold))


def batch_size_for(model: LoadedModel, options: SegmentOptions) -> int:
    """Return how many frames the network gets at once."""
    if rate_for(options, model) == "auto":  # each decision depends on the masks before it
        return 1
    return model.compiled_for or options.batch_size or model.batch_size


def codec_threads(plan: SegmentPlan, model: LoadedModel) -> int:
    """Return the threads of the decoder and of the encoder; 0 lets FFmpeg choose.

    Next to a light network on the CPU, more threads would only take its cores away.
    """
    if are_large(plan):
        return min(LARGE_FRAME_THREADS, os.cpu_count() or 1)
    small = plan.video.width * plan.video.height <= SMALL_FRAME_PX
    return 1 if small and model.light and model.device.type == "cpu" else 0


def are_large(plan: SegmentPlan) -> bool:
    """Return whether the frames of a video are so large that few of them are held."""
    return plan.video.width * plan.video.height >= LARGE_FRAME_PX


def masked(
    frame: ScheduledFrame,
    logits: torch.Tensor | None,
    segmenter: Segmenter,
    options: SegmentOptions,
) -> MaskedFrame:
    """Return a frame with its mask at its own size, and the masks by name if there are names."""
    from av2tsam_cli.masks import mean_scores, native_masks, native_probability

    rgb, resize = frame.frame.rgb, segmenter.model.network.text_sam.resize
    names, numbers = segmenter.names_of(frame.window), segmenter.numbers_of(frame.window)
    score, scores = mean_scores(logits, options.threshold)
    labels, alpha = native_masks(
        logits, rgb, options.threshold, resize=resize, edges=options.refine
    )
    return MaskedFrame(
        frame.frame,
        labels > 0,
        _origin(frame),
        None if names is None else SourceMasks(names, labels, scores, numbers),
        score=score,
        level_dbfs=frame.level_dbfs,
        soft_mask=partial(native_probability, logits, rgb.shape[:2], resize=resize),
        soft_edges=alpha,
    )


def _origin(frame: ScheduledFrame) -> Origin:
    if frame.segment is None:
        return "silent"
    if frame.key:
        return "computed"
    return "reused" if frame.repeats else "interpolated"
