"""Segment a video in parts, in different processes or on different machines.

The sound is analysed once (`analyse_sound`), the timeline is cut (`cut`), each part is segmented
into its own folder (`segment_part`), and the parts are joined (`join_parts`). Masks, frames, times
and names are the same as in one piece, and no picture is encoded twice.

    analyse_sound ── cut ─┬─ segment_part ─┬─ join_parts
                          ├─ segment_part ─┤
                          └─ segment_part ─┘

Each part also decodes and computes some seconds before its first frame and some frames after its
last one, which are not written. It starts where the schedule starts again anyway (`BLOCK_S`), and
early enough that nothing remembered from frame to frame reaches its first frame:

- Smoothing keeps at most half of its memory with every masked frame, so nothing is left of it after
  LEAD_IN_FRAMES. Masks can only differ if one vanishes and returns within a fifth of a second,
  again and again during all these frames.
- A highlight takes up to 1.2 s to fade in or out, and a label follows its source within 0.2 s. They
  can only differ if a source comes and goes faster than it fades during all of LEAD_IN_S.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.files import atomic_folder, write_errors
from av2tsam_cli.media.container import time_of_earlier_frame
from av2tsam_cli.media.damage import DamageLog
from av2tsam_cli.media.probe import changed_error, check_unchanged
from av2tsam_cli.outputs.contact_sheet import MomentFiles
from av2tsam_cli.outputs.frame_table import FrameTable
from av2tsam_cli.outputs.part import SummaryLines, WrittenPart, read_summaries
from av2tsam_cli.outputs.writers import FrameWriter, open_part_writer
from av2tsam_cli.pipeline import (
    SegmentResult,
    Tally,
    check_any,
    describe_result,
    open_writers,
    run_stages,
)
from av2tsam_cli.plan import SegmentPlan, input_id
from av2tsam_cli.stages import codec_threads, listen, rate_for, read_pictures, schedule
from av2tsam_cli.timeline.schedule import BLOCK_S, CLOCK_SLACK_S, ScheduledFrame
from av2tsam_cli.values import AudioWindow, MaskedFrame

if TYPE_CHECKING:
    from av2tsam_cli.inference.segmenter import Segmenter

LEAD_IN_S, LEAD_IN_FRAMES = 2.0, 48
"""The least number of seconds and of frames to compute before the first frame of a part."""
SHOT_FRAMES = 8
"""Frames decoded before these to detect where shots begin."""


@dataclass(frozen=True)
class SoundAnalysis:
    """The sound of a video, as the model needs it."""

    windows: tuple[AudioWindow, ...] = field(repr=False)
    """Windows without samples, about 2 kB each. Empty without sound, and with a text prompt."""
    damage: DamageLog = field(repr=False)
    """Parts of the sound that could not be read."""
    input_id: str
    """Identifies the content of the video, see `plan.input_id`."""


@dataclass(frozen=True)
class Part:
    """A part of the timeline. Times are seconds of the presentation."""

    number: int
    """Index of the part, from 0."""
    decode_s: float
    """Time at which decoding starts."""
    compute_s: float
    """Time of the first frame whose mask is computed."""
    start_s: float
    """Time of the first frame that is written."""
    stop_s: float
    """End of these frames; infinite for the last part."""

    def contains(self, frame_s: float) -> bool:
        """Return whether a frame at a time belongs to the part."""
        return self.start_s - CLOCK_SLACK_S <= frame_s < self.stop_s - CLOCK_SLACK_S


@dataclass(frozen=True)
class PartResult:
    """The result of a part."""

    written: WrittenPart
    """Its folder, which can be moved before the parts are joined."""
    damage: DamageLog = field(repr=False)
    """Frames that could not be read."""


def analyse_sound(plan: SegmentPlan, segmenter: Segmenter) -> SoundAnalysis:
    """Analyse the sound of a video for all parts; the result depends on all earlier sound.

    Raises:
        MediaError: The sound cannot be decoded.
    """
    from av2tsam_cli.inference.device import torch_threads

    damage = DamageLog(plan.info.path, allow_partial=plan.options.allow_partial)
    with torch_threads(segmenter.model.cpu_threads):
        windows = tuple(
            segmenter.without_samples(window, plan.options.silence_dbfs)
            for window in listen(plan, segmenter, damage)
        )
    return SoundAnalysis(windows, damage, input_id(plan.info.path))


def cut(plan: SegmentPlan, seconds: int) -> list[Part]:
    """Cut the timeline of a video into parts, at whole seconds of the presentation.

    There is only one part if the end of the video is unknown.

    Args:
        plan: The plan.
        seconds: Length of the parts. Multiples of `BLOCK_S` need the shortest lead-in.

    Raises:
        MediaError: The video cannot be opened.
    """
    start_s, end_s = plan.options.start, plan.options.end
    if end_s is None or (plan.end_s is not None and plan.end_s < end_s):
        end_s = plan.end_s or 0.0
    # Joined and damaged files can declare an end that is hours after the last frame.
    last = math.floor(max(start_s, _earlier(plan, end_s, 1)))
    cuts = [float(each) for each in range(math.floor(start_s) + seconds, last + 1, seconds)]
    spans = zip([start_s, *cuts], [*cuts, float("inf")], strict=True)
    return [_lead_in(plan, number, *span_s) for number, span_s in enumerate(spans)]


def _lead_in(plan: SegmentPlan, number: int, start_s: float, stop_s: float) -> Part:
    """Return a part, with the times at which decoding and computing start."""
    first_s = plan.options.start
    compute_s = min(start_s - LEAD_IN_S, _earlier(plan, start_s, LEAD_IN_FRAMES))
    compute_s = math.floor(compute_s / BLOCK_S) * BLOCK_S if compute_s > first_s else first_s
    decode_s = compute_s if compute_s <= first_s else _earlier(plan, compute_s, SHOT_FRAMES)
    return Part(number, max(first_s, decode_s), max(first_s, compute_s), start_s, stop_s)


def _earlier(plan: SegmentPlan, before_s: float, frames: int) -> float:
    """Return the time of the frame `frames` frames before a time; -inf if there are fewer."""
    zero_s = plan.zero_s
    path, index = plan.info.path, plan.video.index
    return time_of_earlier_frame(path, index, before_s + zero_s, frames) - zero_s


def segment_part(
    plan: SegmentPlan,
    segmenter: Segmenter,
    sound: SoundAnalysis,
    part: Part,
    folder: Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> PartResult:
    """Segment a part of a video, and write the files that `join_parts` needs.

    Args:
        plan: The plan of the whole video.
        segmenter: Runs the model.
        sound: What `analyse_sound` returned.
        part: One of the parts that `cut` returned.
        folder: A folder for the part, which is replaced if it exists. It appears when complete.
        progress: Called after each frame with the number of frames written.

    Raises:
        MediaError: The video cannot be read, or it was changed.
        Av2tsamError: The folder cannot be written.
    """
    damage = DamageLog(plan.info.path, allow_partial=plan.options.allow_partial)
    with write_errors(folder), atomic_folder(folder) as unfinished:
        written = WrittenPart(unfinished)
        main = open_part_writer(
            written,
            plan.output,
            plan.format,
            info=plan.info,
            video=plan.video,
            encoding=plan.encoding,
            start_s=plan.options.start,
            threads=codec_threads(plan, segmenter.model),
            look=plan.options,
        )
        summaries = SummaryLines(written)
        writers: list[FrameWriter] = [main, summaries]
        if "frames_csv" in plan.sides:
            writers.append(FrameTable(written.rows, first_frame=0, overwrite=False))
        if {"preview", "report"} & {*plan.sides}:
            writers.append(MomentFiles(written, plan.video, plan.options))

        def write(frames: Iterator[MaskedFrame]) -> None:
            with ExitStack() as opened:
                for writer in writers:
                    opened.enter_context(writer)
                for each in frames:
                    if each.frame.time_s < part.start_s - CLOCK_SLACK_S:
                        main.skip(each)
                    elif part.contains(each.frame.time_s):
                        frame = replace(each.frame, index=summaries.frames)
                        numbered = replace(each, frame=frame)
                        for writer in writers:
                            writer.write(numbered)
                        if progress is not None:
                            progress(summaries.frames)

        frames = _read_part(plan, segmenter, sound, part, damage)
        run_stages(plan, segmenter, frames, write, stop_s=part.stop_s, announce=False)
        _check_same_input(plan, sound)
    return PartResult(WrittenPart(folder, summaries.frames), damage)


def _read_part(
    plan: SegmentPlan, segmenter: Segmenter, sound: SoundAnalysis, part: Part, damage: DamageLog
) -> Generator[ScheduledFrame, None, None]:
    frames = read_pictures(plan, segmenter, damage, part.decode_s)
    rate = rate_for(plan.options, segmenter.model)
    yield from schedule(frames, iter(sound.windows), plan.options, rate, part.compute_s)


def _check_same_input(plan: SegmentPlan, sound: SoundAnalysis) -> None:
    """Check that a video is still the one whose sound was analysed, perhaps by another process.

    Raises:
        MediaError: It was replaced, or is still being written.
    """
    check_unchanged(plan.info)
    if input_id(plan.info.path) != sound.input_id:
        raise changed_error(plan.info.path)


def join_parts(
    plan: SegmentPlan, segmenter: Segmenter, sound: SoundAnalysis, results: Sequence[PartResult]
) -> SegmentResult:
    """Join all parts of a video; if that fails, no output is left behind.

    The folders of the parts are kept, and can be removed afterwards.

    Args:
        plan: The plan of the whole video.
        segmenter: Has the model with which the parts were segmented.
        sound: What `analyse_sound` returned.
        results: What `segment_part` returned for each part, in order.

    Raises:
        MediaError: The video has no frames, its sound cannot be read, or it was changed.
        Av2tsamError: The result cannot be written.
    """
    began_s = time.monotonic()
    damage = DamageLog(plan.info.path, allow_partial=plan.options.allow_partial)
    for each in (sound.damage, *(result.damage for result in results)):
        damage.merge(each)
    _check_same_input(plan, sound)
    parts = [result.written for result in results]
    tally = Tally()
    for frame in read_summaries(parts):
        tally.add(frame)
    check_any(plan, tally)
    writers = open_writers(plan, segmenter, damage)
    with ExitStack() as opened:
        for writer in reversed(writers):  # the main output is completed first
            opened.enter_context(writer)
        for writer in writers:
            writer.append(parts)
    damage.report()
    return describe_result(
        plan, segmenter, writers, tally, damage, wall_s=time.monotonic() - began_s
    )
