"""The names of a video's sources: their numbers, colours and folders."""

import re
from collections.abc import Iterable, Iterator

import numpy as np

from av2tsam_cli.errors import UsageError
from av2tsam_cli.values import SourceMasks, UInt8Array

COLOURS = (
    (255, 64, 150),
    (255, 235, 40),
    (110, 60, 255),
    (80, 225, 255),
    (150, 90, 0),
    (255, 170, 90),
    (0, 140, 255),
    (190, 0, 60),
)
"""RGB per source. Any two differ by 20 or more in CIELAB, the first four by 35, in normal vision
and with protanopia, deuteranopia and tritanopia as simulated by Machado et al. (2009)."""
UNNAMED = "sound source"
"""What a source without a name is called."""
MOST_NUMBERS = 255
"""Names that the values of an 8-bit picture can tell apart, beside 0 for none."""
SUMMARY_NAME = "names.json"
"""The file that lists the names beside masks."""
FOLDER_LENGTH = 60
"""Characters of a folder's name; four bytes each still fit into the 255 bytes of file systems."""

_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
"""Characters that Windows or other systems do not allow in names of files."""


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the RGB colour of the source with a number, from 1; they repeat after the last."""
    return COLOURS[(number - 1) % len(COLOURS)]


class NameTable:
    """The names that appeared so far in a video, numbered from 1 in order of first appearance."""

    def __init__(self) -> None:
        self.frames: dict[str, int] = {}
        """For each name the frames in which it has pixels, in order of first appearance."""

    def add(self, sources: SourceMasks) -> dict[int, str]:
        """Count a frame; return its labels that have pixels, each with its name."""
        present = dict(sources.in_view)
        for name in present.values():
            self.frames[name] = self.frames.get(name, 0) + 1
        return present

    def number(self, name: str) -> int:
        """Return the number of a name that appeared."""
        return list(self.frames).index(name) + 1

    def labels(self, sources: SourceMasks) -> UInt8Array:
        """Count a frame; return the number of the name of each pixel, uint8, (H, W), 0 for none.

        Raises:
            UsageError: There are more names than 8 bits can hold.
        """
        numbers = np.zeros(256, np.uint8)
        for label, name in self.add(sources).items():
            if (number := self.number(name)) > MOST_NUMBERS:
                raise UsageError(
                    f"more than {MOST_NUMBERS} names appear, which 8 bits cannot hold; choose "
                    "fewer names with `name`, or set `format` to named-masks"
                )
            numbers[label] = number
        return numbers[sources.labels]


def folder_names(names: Iterable[str]) -> Iterator[str]:
    """Yield for each name a folder that can be created on every system; no two are the same."""
    taken = {SUMMARY_NAME}
    for name in names:
        safe = _UNSAFE.sub("_", name)[:FOLDER_LENGTH].strip(" .") or "_"
        folder, copy = safe, 1
        while folder.casefold() in taken:
            copy += 1
            folder = f"{safe} ({copy})"
        taken.add(folder.casefold())
        yield folder
