"""The names of a video's sources: their numbers, colours and folders."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from av2tsam_cli.errors import UsageError
from av2tsam_cli.values import FrameSummary, NamedArea, SourceMasks, UInt8Array

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
"""The name of sources without names."""
MAX_NUMBERS = 255
"""Number of names that fit into the values of an 8-bit picture, besides 0 for none."""
SUMMARY_NAME = "names.json"
"""The file in a folder of masks that lists the names."""
FOLDER_LENGTH = 60
"""Maximum characters of a folder's name; with up to four bytes each, they fit into the 255 bytes of
file systems."""

_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
"""Characters that Windows or other systems do not allow in file names."""


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the RGB colour of a source by its number, from 1; colours repeat after the last."""
    return COLOURS[(number - 1) % len(COLOURS)]


class NameTable:
    """The named sources of a video, and the number of frames in which each is in view."""

    def __init__(self, unnamed: str | None = None) -> None:
        """Begin without sources.

        Args:
            unnamed: The name of masks without names; None to leave these out.
        """
        self.unnamed = unnamed
        self._names: dict[int, str] = {}
        self._frames: Counter[int] = Counter()

    def count(self, frame: FrameSummary) -> None:
        """Count the next frame."""
        sources = frame.sources
        if sources is None and self.unnamed is not None:
            sources = (NamedArea(self.unnamed, 1, frame.area_px, frame.score),)
        for each in sources or ():
            self._names[each.number] = each.name
            self._frames[each.number] += each.area_px > 0

    @property
    def in_view(self) -> list[tuple[int, str, int]]:
        """Number, name and count of frames of each source that is in view in any frame."""
        counted = sorted(self._frames.items())
        return [(number, self._names[number], frames) for number, frames in counted if frames]

    @property
    def by_number(self) -> list[str]:
        """The names from number 1 to the highest number in view.

        They include sources that are heard but not in view; "" stands for a source that is heard
        for less than a frame.
        """
        last = max((number for number, _, _ in self.in_view), default=0)
        return [self._names.get(number, "") for number in range(1, last + 1)]


def number_labels(sources: SourceMasks) -> UInt8Array:
    """Return the number of each pixel's source, uint8, (H, W), 0 for none.

    Raises:
        UsageError: A number does not fit into 8 bits.
    """
    numbers = np.zeros(256, np.uint8)
    for label, _ in sources.in_view:
        if (number := sources.numbers[label - 1]) > MAX_NUMBERS:
            raise UsageError(
                f"more than {MAX_NUMBERS} names are heard, which 8 bits cannot hold; choose "
                "fewer names with `name`, or set `format` to named-masks"
            )
        numbers[label] = number
    return numbers[sources.labels]


def folder_names(names: Iterable[str]) -> Iterator[str]:
    """Yield a unique folder name for each name that is valid on every system."""
    taken = {SUMMARY_NAME}
    for name in names:
        safe = _UNSAFE.sub("_", name)[:FOLDER_LENGTH].strip(" .") or "_"
        folder, copy = safe, 1
        while folder.casefold() in taken:
            copy += 1
            folder = f"{safe} ({copy})"
        taken.add(folder.casefold())
        yield folder
