"""Names and numbers of the AVSBench format, shared by `synth`, `data` and the command options."""

from typing import Literal, get_args

Subset = Literal["s4", "ms3", "avss"]
"""Single source, multiple sources, AVSBench-semantic."""
Split = Literal["train", "val", "test"]

SUBSETS: tuple[Subset, ...] = get_args(Subset)
SPLITS: tuple[Split, ...] = get_args(Split)
DATA_NAME = "avsbench"
"""Value of `data` that stands for AVSBench itself instead of a path."""
FRAME_PX = 224
"""Side of the squares to which AVSBench's S4 and MS3 frames were resized, in pixels."""
FRAME_OFFSET_S = 15 / 16
"""Seconds from the start of each second to the moment its frame is taken."""

_S4 = (
    "ambulance_siren baby_laughter cap_gun_shooting cat_meowing chainsawing_trees "
    "coyote_howling dog_barking driving_buses female_singing helicopter horse_clip-clop "
    "lawn_mowing lions_roaring male_speech mynah_bird_singing playing_acoustic_guitar "
    "playing_glockenspiel playing_piano playing_tabla playing_ukulele playing_violin race_car "
    "typing_on_computer_keyboard"
)
S4_CATEGORIES: tuple[str, ...] = tuple(_S4.split())
"""The 23 categories of the single-source subset."""
_AVSS = (
    "background accordion airplane axe baby bassoon bell bird boat boy bus car cat cello "
    "clarinet clipper clock dog donkey drum duck elephant emergency-car erhu flute frying-food "
    "girl goose guitar gun guzheng hair-dryer handpan harmonica harp helicopter hen horse "
    "keyboard leopard lion man marimba missile-rocket motorcycle mower parrot piano pig pipa "
    "saw saxophone sheep sitar sorna squirrel tabla tank tiger tractor train trombone truck "
    "trumpet tuba ukulele utv vacuum-cleaner violin wolf woman"
)
AVSS_CLASSES: tuple[str, ...] = tuple(_AVSS.split())
"""The 71 classes of AVSBench-semantic; the index is the label, and 0 is background."""


def _colour(label: int) -> tuple[int, int, int]:
    """Return a class's colour: the bits of its number, dealt to red, green and blue in turn."""
    red, green, blue = (
        sum((label >> (3 * k + channel) & 1) << (7 - k) for k in range(3)) for channel in range(3)
    )
    return red, green, blue


AVSS_COLOURS: tuple[tuple[int, int, int], ...] = tuple(map(_colour, range(len(AVSS_CLASSES))))
"""RGB colours of the classes in AVSBench-semantic's masks, which are those of PASCAL VOC (the
repository's `avs_scripts/avss/color_dataloader.py: get_v2_pallete`)."""
