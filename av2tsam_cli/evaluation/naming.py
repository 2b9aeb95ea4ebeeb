"""How well sources are named: precision, recall and F1 over the labelled seconds.

A name is right in a second if an object with this name makes sound in its frame. Letters: T frames
of one video, H rows, W columns.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LabelArray = npt.NDArray[np.unsignedinteger[Any]]
"""Labels of pixels, 0 for the background."""


@dataclass(frozen=True)
class NamingCounts:
    """Names of one or more videos, counted once per second."""

    right: int
    """Names that were given and are true."""
    given: int
    """Names that were given."""
    true: int
    """Names that are true."""

    @property
    def precision(self) -> float:
        """Share of the given names that are true; 1 if none was given."""
        return self.right / self.given if self.given else 1.0

    @property
    def recall(self) -> float:
        """Share of the true names that were given; 1 if there are none."""
        return self.right / self.true if self.true else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 if no name was given and none is true."""
        total = self.given + self.true
        return 2 * self.right / total if total else 1.0


def count_names(
    given: Sequence[AbstractSet[int]], true: Sequence[AbstractSet[int]]
) -> NamingCounts:
    """Compare the names of T seconds of one video, each a set of labels."""
    pairs = list(zip(given, true, strict=True))
    return NamingCounts(
        right=sum(len(one & other) for one, other in pairs),
        given=sum(len(one) for one, _ in pairs),
        true=sum(len(other) for _, other in pairs),
    )


def add_names(videos: Iterable[NamingCounts]) -> NamingCounts:
    """Return the counts of several videos together."""
    listed = list(videos)
    return NamingCounts(
        right=sum(video.right for video in listed),
        given=sum(video.given for video in listed),
        true=sum(video.true for video in listed),
    )


def labels_in(labels: LabelArray) -> list[set[int]]:
    """Return the labels of each frame without 0, the background, given labels (T, H, W)."""
    return [set(np.unique(frame).tolist()) - {0} for frame in labels]
