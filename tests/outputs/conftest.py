"""Fixtures for the writers: a job from clip to result, and a limit on the size of files."""

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.media.audio import choose_audio
from av2tsam_cli.media.frames import read_frames
from av2tsam_cli.media.probe import clock_zero, probe
from av2tsam_cli.outputs.encoding import bits_per_channel, choose_encoding
from av2tsam_cli.outputs.record import ResultRecord
from av2tsam_cli.outputs.writers import Format, open_writer
from av2tsam_cli.segment_options import VIDEO_SUFFIXES, LookOptions
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

Job = Callable[..., list[float]]


def middle(frame: Frame) -> npt.NDArray[np.bool_]:
    """A mask of the middle of a frame."""
    height, width = frame.rgb.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    return mask


def two_sources(frame: Frame) -> SourceMasks:
    """A dog on the left, and from frame 2 on a guitar on the right; the dog was heard first."""
    labels = np.zeros(frame.rgb.shape[:2], np.uint8)
    labels[10:30, 4:20] = 2
    if frame.index >= 2:
        labels[10:30, 40:60] = 1
    return SourceMasks(("acoustic guitar", "dog"), labels, (0.5, 0.75), (2, 1))


@pytest.fixture
def job() -> Job:
    """Run a clip through a writer; return the times that the frames should have."""

    def run(
        clip: Path,
        target: Path,
        kind: Format = "video",
        *,
        masked: Callable[[Frame], npt.NDArray[np.bool_]] = middle,
        soft: Callable[[Frame], npt.NDArray[np.uint8]] | None = None,
        named: Callable[[Frame], SourceMasks | None] = lambda _: None,
        names: bool = False,
        look: dict[str, Any] | None = None,
        start_s: float = 0.0,
        stop_s: float | None = None,
        overwrite: bool = False,
        fail_after: int | None = None,
        error: BaseException | None = None,
        record: ResultRecord | None = None,
        **encoding: Any,
    ) -> list[float]:
        info = probe(clip)
        video, audio = info.video[0], choose_audio(info, None)
        zero_s = clock_zero(info, video, audio)
        trim: dict[str, Any] = {"zero_s": zero_s, "start_s": start_s, "stop_s": stop_s}
        times_s = []
        chosen = (
            choose_encoding(target, video.pixel_format, alpha=kind == "cutout", **encoding)
            if kind in VIDEO_SUFFIXES
            else None
        )
        deep = chosen is not None and min(chosen.bits, bits_per_channel(video.pixel_format)) > 8
        with open_writer(
            target if kind in VIDEO_SUFFIXES else target / clip.stem,
            kind,
            info=info,
            video=video,
            audio=audio,
            encoding=chosen,
            overwrite=overwrite,
            record=record,
            look=LookOptions(names=names, **(look or {})),
            **trim,
        ) as writer:
            for frame in read_frames(info, stream=video, deep=deep, **trim):
                if error is not None and frame.index == fail_after:
                    raise error
                edges = soft(frame) if soft else None
                mask = masked(frame) if edges is None else edges > 127
                writer.write(MaskedFrame(frame, mask, "computed", named(frame), soft_edges=edges))
                times_s.append(frame.time_s - start_s)
        return times_s

    return run


@pytest.fixture
def files_up_to() -> Callable[[int], Any]:
    """Limit the size of files that this process writes, like a full disk."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
