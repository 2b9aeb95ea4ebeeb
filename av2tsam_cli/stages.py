"""The stages between a video and its masks: read, schedule, prepare, compute, enlarge.

Functions from iterators to iterators; `pipeline` decides on which threads they run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from av2tsam_cli.media.audio import read_windows
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.plan import SegmentPlan
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.threads import run_ahead
from av2tsam_cli.timeline.cuts import number_shots
from av2tsam_cli.timeline.schedule import (
    ScheduledFrame,
    batches,
    mark_keys,
    mark_repeats,
    pair_with_audio,
    without_audio,
)
from av2tsam_cli.values import AudioWindow, BoolArray, Frame, SourceMasks

if TYPE_CHECKING:
    import torch

    from av2tsam_cli.inference.loading import LoadedModel
    from av2tsam_cli.inference.segmenter import FrameInputs, Segmenter

SMALL_FRAME_PX = 1280 * 720
"""Pixels up to which one thread decodes, and one encodes, faster than a light network runs."""


def read_scheduled(plan: SegmentPlan, segmenter: Segmenter) -> Iterator[ScheduledFrame]:
    """Decode the frames of a video and, without a text prompt, its audio."""
    options = plan.options
    frames = read_frames(
        plan.info,
        stream=plan.video,
        zero_s=plan.zero_s,
        start_s=options.start,
        stop_s=options.end,
        threads=codec_threads(plan, segmenter.model),
    )
    windows: Iterator[AudioWindow] = iter(())
    if plan.audio is not None and options.text is None:
        windows = read_windows(
            plan.info,
            rate_hz=segmenter.rate_hz,
            stream=plan.audio,
            zero_s=plan.zero_s,
            start_s=options.start,
            stop_s=options.end,
        )
        windows = segmenter.hear(windows)
    return schedule(frames, windows, options)


def schedule(
    frames: Iterable[Frame], windows: Iterator[AudioWindow], options: SegmentOptions
) -> Iterator[ScheduledFrame]:
    """Decide for which frames a mask is computed, and from which second of audio."""
    frames = number_shots(frames)
    if options.text is not None:
        scheduled = without_audio(frames)
    else:
        scheduled = pair_with_audio(frames, windows, options.silence_dbfs)
    return mark_repeats(mark_keys(scheduled, options.fps), options.reuse)


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


def prepare_ahead(
    frames: Iterator[ScheduledFrame], segmenter: Segmenter, size: int
) -> Generator[Batch, None, None]:
    """Decode, group into batches, and resize the key frames for the network, on another thread."""
    from av2tsam_cli.inference.device import torch_threads

    def prepare() -> Generator[Batch, None, None]:
        for batch in batches(frames, size):
            keys = [each.frame.rgb for each in batch if each.key]
            yield Batch(batch, segmenter.prepare(keys) if keys else None)

    return run_ahead(prepare(), depth=1, name="decode", context=partial(torch_threads, 1))


def compute_logits(
    segmenter: Segmenter, batch: Batch
) -> Iterator[tuple[ScheduledFrame, torch.Tensor | None]]:
    """Run the network on a batch; yield all frames in order, key frames with logits (K, h, w)."""
    from av2tsam_cli.inference.device import torch_threads

    rows: Iterator[torch.Tensor] = iter(())
    if batch.inputs is not None:
        windows = [each.window for each in batch.frames if each.key and each.window is not None]
        with torch_threads(segmenter.model.cpu_threads):
            rows = iter(segmenter.source_logits(batch.inputs, windows))
    for each in batch.frames:
        yield each, next(rows) if each.key else None


@dataclass(frozen=True)
class ComputedBatch:
    """The frames of a batch with the logits of the key frames, which a GPU may still compute."""

    frames: list[tuple[ScheduledFrame, torch.Tensor | None]]
    """All frames in order, key frames with logits (K, h, w)."""
    wait: Callable[[], None]
    """Waits until the logits are computed."""


def when_done(
    batches: Iterator[ComputedBatch],
) -> Iterator[tuple[ScheduledFrame, torch.Tensor | None]]:
    """Yield the frames of each batch once its logits are computed."""
    for batch in batches:
        batch.wait()
        yield from batch.frames


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
    return model.compiled_for or options.batch_size or model.batch_size


def codec_threads(plan: SegmentPlan, model: LoadedModel) -> int:
    """Return the threads of the decoder and of the encoder; 0 lets FFmpeg choose.

    Next to a light network on the CPU, more threads would only take its cores away.
    """
    small = plan.video.width * plan.video.height <= SMALL_FRAME_PX
    return 1 if small and model.light and model.device.type == "cpu" else 0


def native_masks(
    frame: ScheduledFrame, logits: torch.Tensor | None, segmenter: Segmenter, threshold: float
) -> tuple[BoolArray, SourceMasks | None]:
    """Return the mask of a frame at its own size, and the masks by name if there are names."""
    from av2tsam_cli.masks import native_labels, native_mask

    size, resize = frame.frame.rgb.shape[:2], segmenter.model.network.text_sam.resize
    names = segmenter.names_of(frame.window)
    if names is None:
        return native_mask(logits, size, threshold, resize=resize), None
    labels = native_labels(logits, size, threshold, resize=resize)
    return labels > 0, SourceMasks(names, labels)
