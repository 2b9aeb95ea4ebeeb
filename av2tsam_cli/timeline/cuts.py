"""Find cuts, and number the shots between them."""

from collections import deque
from collections.abc import Generator, Iterable
from dataclasses import replace

import cv2
import numpy as np

from av2tsam_cli.values import Frame, UInt8Array

LOOK_AHEAD = 2
"""Frames before and after a change to look at, to tell a cut from motion, a fade or a flash."""
RATIO = 2 * LOOK_AHEAD + 0.05
"""Minimum ratio of the change at a cut to the average change in these frames. A flash of up to
LOOK_AHEAD frames causes two changes, so that neither reaches this ratio."""
MIN_LEVELS = 8.0
"""Minimum mean change of brightness at a cut, in levels of 0 to 255."""
SAMPLED_SIZE, COMPARED_SIZE = (192, 108), (64, 36)
"""Width and height in pixels: a sample of a frame's pixels, and their averages, which are compared.
To average all pixels would take as long as everything else."""


def number_shots(frames: Iterable[Frame]) -> Generator[Frame, None, None]:
    """Yield the frames with the index of their shot, LOOK_AHEAD frames later.

    Cuts are found by PySceneDetect's `AdaptiveDetector`, from brightness alone: with colours, it
    takes fades to black for cuts. Cuts during strong motion may be missed.
    """
    # Imported here, because it takes 0.1 s.
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(
        adaptive_threshold=RATIO,
        min_content_val=MIN_LEVELS,
        window_width=LOOK_AHEAD,
        min_scene_len=1,
        luma_only=True,
    )
    clock = FrameTimecode(0, fps=25.0)  # the detector counts frames, so any rate will do

    def follows_cut(picture: UInt8Array) -> bool:
        """Process one picture; return whether a shot began LOOK_AHEAD pictures ago."""
        nonlocal clock
        clock = clock + 1  # not +=, which would change the object that the detector keeps
        return bool(detector.process_frame(clock, picture))

    waiting: deque[Frame] = deque()
    shot, picture = 0, None
    for frame in frames:
        first, picture = picture is None, _small(frame.rgb)
        for _ in range(LOOK_AHEAD if first else 0):  # as if a still picture preceded the video
            follows_cut(picture)
        waiting.append(frame)
        cut = follows_cut(picture)
        if len(waiting) > LOOK_AHEAD:
            shot += cut
            yield replace(waiting.popleft(), shot=shot)
    for frame in waiting:
        shot += picture is not None and follows_cut(picture)
        yield replace(frame, shot=shot)


def _small(rgb: UInt8Array) -> UInt8Array:
    sampled = cv2.resize(rgb, SAMPLED_SIZE, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(sampled, COMPARED_SIZE, interpolation=cv2.INTER_AREA), np.uint8)
