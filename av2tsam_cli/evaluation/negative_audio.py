"""What a network hears of a video when it is evaluated: its own sound, or one that is not its own.

Negative sounds are those of AVSBench-Robust (Li et al., "Do Audio-Visual Segmentation Models Truly
Segment Sounding Objects?", arXiv 2502.00358), as its repository jiali-home/AVSBench-Robust makes
them in `dataset_generation/audio_processing.py`: digital silence, white noise over the whole range,
and the sound of a video of the same split that shows something else. T = seconds that are asked
for.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from av2tsam_cli.data.avsbench import Clip
from av2tsam_cli.errors import UsageError
from av2tsam_cli.values import Float32Array

Sound = Literal["original", "silence", "noise", "offscreen"]

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
"""AVSBench-Robust's groups of AVSBench's categories: those of S4, then those of MS3."""
ALIKE = {"music": {"human"}, "human": {"music"}, "animal": {"human"}}
"""Groups whose sounds it does not give to videos of a group, besides the group itself."""
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}


def draw_donors(clips: Sequence[Clip], seed: int) -> tuple[Clip, ...]:
    """For each video of a split another one whose sound does not belong to it.

    It is one of another category, and as in AVSBench-Robust one of another group of categories
    where there is any. Where categories are lists (AVSBench-semantic, and MS3 where its CSV has
    them) the two have none in common; AVSBench's MS3 has none, and any other video will do.

    Args:
        clips: The whole split, so that the choice does not depend on how much of it is scored.
        seed: Decides the choice.

    Raises:
        UsageError: A video has no other to take its sound from.
    """
    rng = np.random.default_rng(seed)
    kinds = [_kinds(clip) for clip in clips]
    groups = [frozenset(_GROUP_OF[kind] for kind in some if kind in _GROUP_OF) for some in kinds]
    donors = []
    for place, clip in enumerate(clips):
        order = (int(other) for other in rng.permutation(len(clips)))
        others = [k for k in order if k != place and not kinds[k] & kinds[place]]
        if not others:
            raise UsageError(
                f"--audio offscreen: the split has no video whose sound {clip.name} could get, of "
                "another category where there are any; use more data, or --audio noise"
            )
        near = groups[place].union(*(ALIKE.get(group, ()) for group in groups[place]))
        far = (k for k in others if not groups[k] & near)
        donors.append(clips[next(far, others[0])])
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
    """Windows (T, rate_hz) of white noise, uniform in [-1, 1]: about -5 dBFS."""
    return rng.uniform(-1.0, 1.0, (seconds, rate_hz)).astype(np.float32)
