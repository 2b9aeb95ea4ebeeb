"""The stages between a video and its masks: read, schedule, prepare, compute, enlarge.

These are functions from iterators to iterators; `pipeline` chooses the threads that they run on.
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
"""Frames up to this number of pixels are decoded or encoded by one thread faster than a light
network processes them."""
LARGE_FRAME_PX = 2560 * 1440
"""From this number of pixels on, as few frames as possible are in memory: a 4K frame takes 24 MiB
as RGB."""
FRAMES_AHEAD = 5
"""Frames that are decoded ahead of a network that processes one at a time."""
BATCHES_AHEAD = 2
"""Batches that are prepared ahead of the network."""
CPU_BATCH_BYTES, GPU_BATCH_BYTES = 1 << 26, 1 << 28
"""Limit of the bytes of the frames in a batch, unless the batch size is set: larger batches of
large frames are hardly faster."""
LARGE_FRAME_THREADS = 4
"""Limit of the decoder or encoder threads for large frames, because each thread holds several."""


def read_scheduled(
    plan: SegmentPlan, segmenter: Segmenter, damage: DamageLog
) -> Generator[ScheduledFrame, None, None]:
    """Decode the frames of a video and, without a text prompt, its audio.

    Raises:
        MediaError: The video cannot be decoded, or has changed since it was planned.
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
    """Decode the audio of a video and prepare it for the model; nothing with a text prompt."""
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
    """Decide which masks are computed, and from which window of audio.

    With the rate `auto`, all frames with a prompt are marked as key frames first; see
    `compute_where_needed`.

    Args:
        frames: All frames, in order.
        windows: The sound.
        options: The options.
        rate: Masks per second.
        from_s: Time before which frames are only used to find cuts, and not scheduled.
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
    """Return the masks to compute per second: as set, or the default for model and device."""
    if options.fps is not None:
        return options.fps
    return "all" if model.light or model.device.type != "cpu" else "auto"


@dataclass(frozen=True)
class ComputedBatch:
    """Consecutive frames with the logits of the key frames, which a GPU may still be computing."""

    frames: deque[tuple[ScheduledFrame, torch.Tensor | None]]
    """All frames in order, key frames with logits (K, h, w)."""
    wait: Callable[[], None]
    """Waits until the logits are computed."""
    seconds_per_mask: float | None
    """Time of the network per key frame; None without key frames."""


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
        stop_s: Time up to which masks are needed. Later frames are only processed if these masks
            depend on them.
    """
    end = _End(stop_s)
    if rate_for(options, segmenter.model) == "auto":
        ahead = 1 if large else FRAMES_AHEAD
        return compute_where_needed(frames, segmenter, options, ahead, end)
    groups = end.cut(grouped(frames, segmenter.model, options))
    return compute_batches(groups, segmenter, 1 if large else BATCHES_AHEAD)


class _End:
    """Finds the frame after which no more frames are needed for the masks before a time."""

    def __init__(self, stop_s: float) -> None:
        self.stop_s, self.frames_after = stop_s - CLOCK_SLACK_S, 0

    def cut(self, groups: Iterator[list[ScheduledFrame]]) -> Iterator[list[ScheduledFrame]]:
        """Yield groups of frames as long as they are needed."""
        for group in groups:
            is_last = self.is_in(group)
            yield group
            if is_last:
                return

    def is_in(self, group: Iterable[ScheduledFrame]) -> bool:
        """Return whether no frames after the next group are needed; call this for each group.

        Smoothing looks LONGEST_GAP frames ahead, and masks are interpolated up to the next frame
        whose mask is computed or reused.
        """
        ended = False
        for each in group:
            self.frames_after += each.frame.time_s >= self.stop_s
            if self.frames_after >= LONGEST_GAP:
                ended = ended or each.key or each.repeats or each.segment is None
        return ended


def compute_where_needed(
    frames: Generator[ScheduledFrame, None, None],
    segmenter: Segmenter,
    options: SegmentOptions,
    ahead: int,
    end: _End,
) -> Generator[ComputedBatch, None, None]:
    """Run the network for frames whose mask cannot be predicted from earlier frames."""
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
            if end.is_in([chosen]):
                return


def compute_batches(
    groups: Iterator[list[ScheduledFrame]], segmenter: Segmenter, ahead: int
) -> Generator[ComputedBatch, None, None]:
    """Run the network on batches that are prepared on another thread."""
    from av2tsam_cli.inference.device import torch_threads

    def prepared() -> Generator[Batch, None, None]:
        # Unlike a loop, `map` does not keep a batch in memory while the next one is prepared.
        yield from map(partial(prepare, segmenter), groups)

    decode = partial(torch_threads, 1)
    with closing(run_ahead(prepared(), depth=ahead, name="decode", context=decode)) as ready:
        yield from map(partial(compute_batch, segmenter), ready)


def grouped(
    frames: Generator[ScheduledFrame, None, None], model: LoadedModel, options: SegmentOptions
) -> Iterator[list[ScheduledFrame]]:
    """Group frames into batches; if no batch size is set, also limit their bytes."""
    max_bytes = CPU_BATCH_BYTES if model.device.type == "cpu" else GPU_BATCH_BYTES
    is_set = model.compiled_for or options.batch_size
    return batches(frames, batch_size_for(model, options), None if is_set else max_bytes)


@dataclass(frozen=True)
class Batch:
    """Consecutive frames, with the network's inputs for the key frames among them."""

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
    """Yield the frames of each batch when its logits are computed, and remove them from it."""
    for batch in batches:
        batch.wait()
        while batch.frames:
            yield batch.frames.popleft()


def smoothed(
    frames: Iterable[tuple[ScheduledFrame, torch.Tensor | None]],
    segmenter: Segmenter,
    options: SegmentOptions,
) -> Iterable[tuple[ScheduledFrame, torch.Tensor | None]]:
    """Smooth the logits of consecutive frames over time, unless that is switched off."""
    from av2tsam_cli.masks import logit
    from av2tsam_cli.timeline.steady import steady_logits

    if not options.smooth:
        return frames
    return steady_logits(frames, segmenter.names_of, logit(options.threshold))


def batch_size_for(model: LoadedModel, options: SegmentOptions) -> int:
    """Return how many frames the network processes at once."""
    if rate_for(options, model) == "auto":  # each decision depends on the masks before it
        return 1
    return model.compiled_for or options.batch_size or model.batch_size


def codec_threads(plan: SegmentPlan, model: LoadedModel) -> int:
    """Return the number of threads for the decoder and for the encoder; 0 lets FFmpeg choose.

    With a light network on the CPU, more threads would only compete with the network.
    """
    if are_large(plan):
        return min(LARGE_FRAME_THREADS, os.cpu_count() or 1)
    small = plan.video.width * plan.video.height <= SMALL_FRAME_PX
    return 1 if small and model.light and model.device.type == "cpu" else 0


def are_large(plan: SegmentPlan) -> bool:
    """Return whether frames are so large that as few as possible should be in memory."""
    return plan.video.width * plan.video.height >= LARGE_FRAME_PX


def masked(
    frame: ScheduledFrame,
    logits: torch.Tensor | None,
    segmenter: Segmenter,
    options: SegmentOptions,
) -> MaskedFrame:
    """Return a frame with its mask at full size, and a mask per name if sources have names."""
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
