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
