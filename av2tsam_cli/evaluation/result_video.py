"""A video of some results: frame, prediction and true mask side by side, with the sound.

Letters: T labelled frames of a video, H, W size of its frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np

from av2tsam_cli.data.clips import read_clip_frames
from av2tsam_cli.evaluation.davis import region_similarity
from av2tsam_cli.evaluation.evaluate import EvaluatedVideo
from av2tsam_cli.evaluation.options import EvaluateOptions
from av2tsam_cli.evaluation.report import score_line
from av2tsam_cli.evaluation.routes import read_windows
from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.outputs.clip import write_clip
from av2tsam_cli.outputs.overlay import OverlayStyle, draw_overlay
from av2tsam_cli.values import BoolArray, UInt8Array

HEIGHT_PX = 320
"""Height of a frame."""
BAR_PX = 28
"""Height of the bar with the scores above the frames, and of the captions below."""
GAP_PX = 8
"""Space between the frames."""
RATE = 4
"""Frames per second; each labelled frame is shown for its second."""
SOUND_RATE_HZ = 48_000
H264 = {"preset": "medium", "crf": "20", "threads": "1"}
TRUE_STYLE = OverlayStyle(colour=(64, 200, 255))


def write_result_video(
    path: Path, videos: Sequence[EvaluatedVideo], options: EvaluateOptions, *, overwrite: bool
) -> None:
    """Write the results of some videos one after the other, with the sound that was evaluated.

    Args:
        path: The MP4.
        videos: The videos.
        options: The options of their evaluation.
        overwrite: Whether to replace an existing file.

    Raises:
        MediaError: A frame or the sound cannot be read.
        Av2tsamError: The file cannot be written; nothing is left.
    """
    frames = [read_clip_frames(video.result.clip, video.result.clip.labelled) for video in videos]
    cell_px = max(_width(rgb[0]) for rgb in frames)
    mono = replace(options, reference_audio=False)
    sound = np.concatenate(
        [
            read_windows(mono, video.planned, SOUND_RATE_HZ, video.result.clip.labelled).flatten()
            for video in videos
        ]
    )
    pictures = (
        picture
        for video, rgb in zip(videos, frames, strict=True)
        for picture in _pictures(video, rgb, cell_px)
        for _ in range(RATE)
    )
    with (
        write_errors(path, catch=(av.FFmpegError,)),
        atomic_file(path, overwrite=overwrite) as part,
    ):
        write_clip(
            part,
            pictures,
            sound,
            size=(3 * cell_px + 2 * GAP_PX, HEIGHT_PX + 2 * BAR_PX),
            rate=RATE,
            rate_hz=SOUND_RATE_HZ,
            h264=H264,
        )


def _pictures(video: EvaluatedVideo, frames: UInt8Array, cell_px: int) -> Iterator[UInt8Array]:
    """Yield the picture of each labelled frame, RGB."""
    true_masks: BoolArray = video.true_masks.numpy()
    if video.result.gated.negative is not None:  # no object in the picture makes the negative audio
        true_masks = np.zeros_like(true_masks)
    scores = region_similarity(video.masks, true_masks)
    for rgb, mask, true, score in zip(frames, video.masks, true_masks, scores, strict=True):
        cells = [
            _cell(rgb, cell_px, "frame"),
            _cell(draw_overlay(rgb, mask), cell_px, f"prediction, J {score:.3f}"),
            _cell(draw_overlay(rgb, true, TRUE_STYLE), cell_px, "true mask"),
        ]
        gap = np.zeros((HEIGHT_PX + BAR_PX, GAP_PX, 3), np.uint8)
        row = np.hstack([cells[0], gap, cells[1], gap, cells[2]])
        yield np.vstack([_bar(row.shape[1], score_line(video.result)), row])


def _width(rgb: UInt8Array) -> int:
    """Return the width of a frame (H, W, 3) at `HEIGHT_PX`, rounded to an even number."""
    return 2 * int(rgb.shape[1] * HEIGHT_PX / rgb.shape[0] / 2 + 0.5)


def _cell(rgb: UInt8Array, width: int, caption: str) -> UInt8Array:
    """Return an image at `HEIGHT_PX`, centred in a cell of a width, with a caption below."""
    method = cv2.INTER_AREA if rgb.shape[0] > HEIGHT_PX else cv2.INTER_LINEAR
    image = cv2.resize(rgb, (_width(rgb), HEIGHT_PX), interpolation=method)
    left = (width - image.shape[1]) // 2
    cell = np.pad(image, ((0, 0), (left, width - image.shape[1] - left), (0, 0)))
    return np.vstack([cell, _bar(width, caption)])


def _bar(width: int, text: str) -> UInt8Array:
    bar = np.zeros((BAR_PX, width, 3), np.uint8)
    cv2.putText(bar, text, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (235,) * 3, 1, cv2.LINE_AA)
    return bar
