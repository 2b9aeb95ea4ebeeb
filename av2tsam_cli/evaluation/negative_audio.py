"""Negative audio: sound that does not belong to a video, in which no object should be found.

It follows AVSBench-Robust (Li et al., "Do Audio-Visual Segmentation Models Truly Segment Sounding
Objects?", arXiv 2502.00358) and `dataset_generation/audio_processing.py` of its repository
jiali-home/AVSBench-Robust: digital silence, full-scale white noise, or the audio of another video
of the same split that shows something else. T = requested seconds.
"""

from collections.abc import Sequence

import numpy as np

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.errors import UsageError
from av2tsam_cli.values import Float32Array

GROUPS = {
    "music": (
        "playing_acoustic_guitar playing_glockenspiel playing_piano playing_tabla playing_ukulele "
        "playing_violin guitar tabla violin ukulele piano marimba"
    ),
    "human": "baby_laughter female_singing male_speech man woman baby",
    "animal": (
        "cat_meowing coyote_howling dog_barking horse_clip-clop lions_roaring mynah_bird_singing "
        "dog cat lion bird wolf"
    ),
    "device": (
        "driving_buses helicopter race_car ambulance_siren cap_gun_shooting chainsawing_trees "
        "lawn_mowing typing_on_computer_keyboard mower background bus car gun saw emergency-car "
        "keyboard"
    ),
}
"""AVSBench-Robust's groups of AVSBench's categories: first those of S4, then those of MS3."""
SIMILAR_GROUPS = {"music": {"human"}, "human": {"music"}, "animal": {"human"}}
"""Other groups whose audio AVSBench-Robust does not use for videos of a group."""
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}


def choose_donors(clips: Sequence[Clip], seed: int) -> tuple[Clip, ...]:
    """Choose for each video of a split another one whose audio does not belong to it.

    The other video has another category and, as in AVSBench-Robust, a category of another group if
    there is one. If videos have several categories (AVSBench-semantic, and MS3 if its CSV has
    them), the two videos share none. Without categories, as in AVSBench's MS3, any other video may
    be chosen.

    Args:
        clips: The whole split, so that the choice does not depend on how many videos are scored.
        seed: Seed of the random choice.

    Raises:
        UsageError: There is no suitable video.
    """
    rng = np.random.default_rng(seed)
    categories = [_categories(clip) for clip in clips]
    groups = [
        frozenset(_GROUP_OF[name] for name in names if name in _GROUP_OF) for names in categories
    ]
    donors = []
    for index, clip in enumerate(clips):
        order = (int(other) for other in rng.permutation(len(clips)))
        others = [k for k in order if k != index and not categories[k] & categories[index]]
        if not others:
            raise UsageError(
                f"no video of another category is left to replace the audio of {clip.name}; use "
                "more data, or set `audio` to noise"
            )
        avoided = groups[index].union(*(SIMILAR_GROUPS.get(group, ()) for group in groups[index]))
        preferred = (k for k in others if not groups[k] & avoided)
        donors.append(clips[next(preferred, others[0])])
    return tuple(donors)


def _categories(clip: Clip) -> frozenset[str]:
    """Return the categories of a video; only S4's names contain underscores."""
    if clip.category is None:
        return frozenset()
    return frozenset([clip.category] if clip.subset == "s4" else clip.category.split("_"))


def silence(seconds: int, rate_hz: int) -> Float32Array:
    """Return windows of digital silence, float32, (T, rate_hz)."""
    return np.zeros((seconds, rate_hz), np.float32)


def noise(seconds: int, rate_hz: int, rng: np.random.Generator) -> Float32Array:
    """Return windows of white noise, uniform in [-1, 1], about -5 dBFS, float32, (T, rate_hz)."""
    return rng.uniform(-1.0, 1.0, (seconds, rate_hz)).astype(np.float32)
