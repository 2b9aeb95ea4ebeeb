"""What a network hears of a video when it is evaluated: its own sound, or one that is not its own.

Negative sounds are those of AVSBench-Robust (Li et al., "Do Audio-Visual Segmentation Models Truly
Segment Sounding Objects?", arXiv 2502.00358, and its repository jiali-home/AVSBench-Robust): with
silence, with noise and with the sound of something that is not in the picture, nothing in the
picture sounds. T = seconds that are asked for.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from av2tsam_cli.errors import UsageError
from av2tsam_cli.training.avsbench import Clip, read_windows
from av2tsam_cli.values import Float32Array

Sound = Literal["original", "silence", "noise", "offscreen"]
NOISE_DBFS = -20.0
"""RMS level of the white noise."""


def draw_donors(clips: Sequence[Clip], seed: int) -> tuple[Clip, ...]:
    """For each video of a split another one whose sound does not belong to it.

    It is one of another category. Where categories are lists (AVSBench-semantic, and MS3 where its
    CSV has them) the two have none in common; AVSBench's MS3 has none, and any other video will do.

    Args:
        clips: The whole split, so that the choice does not depend on how much of it is scored.
        seed: Decides the choice.

    Raises:
        UsageError: A video has no other to take its sound from.
    """
    rng = np.random.default_rng(seed)
    kinds = [_kinds(clip) for clip in clips]
    donors = []
    for place, clip in enumerate(clips):
        order = (int(other) for other in rng.permutation(len(clips)))
        found = (k for k in order if k != place and not kinds[k] & kinds[place])
        if (donor := next(found, None)) is None:
            raise UsageError(
                f"--audio offscreen: the split has no video whose sound {clip.name} could get, of "
                "another category where there are any; use more data, or --audio noise"
            )
        donors.append(clips[donor])
    return tuple(donors)


def _kinds(clip: Clip) -> frozenset[str]:
    """What a video is labelled to sound of; S4's categories have underscores in their names."""
    if clip.category is None:
        return frozenset()
    return frozenset([clip.category] if clip.subset == "s4" else clip.category.split("_"))


def silence(seconds: int, rate_hz: int) -> Float32Array:
    """Windows (T, rate_hz) of digital silence."""
    return np.zeros((seconds, rate_hz), np.float32)


def noise(seconds: int, rate_hz: int, rng: np.random.Generator) -> Float32Array:
    """Windows (T, rate_hz) of white Gaussian noise at `NOISE_DBFS`, in [-1, 1]."""
    level = 10 ** (NOISE_DBFS / 20)
    drawn = rng.normal(0.0, level, (seconds, rate_hz)).clip(-1.0, 1.0)
    return drawn.astype(np.float32)


def offscreen(
    donor: Clip, seconds: Sequence[int], rate_hz: int, *, reference: bool = False
) -> Float32Array:
    """The same seconds of another video's sound, from its beginning again where it is shorter.

    Raises:
        MediaError: That sound is missing or damaged.
    """
    taken = [second % donor.seconds for second in seconds]
    return read_windows(donor, taken, rate_hz, reference=reference)
