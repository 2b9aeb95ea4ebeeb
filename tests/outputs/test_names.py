"""Colours that can be told apart, and names in order of first appearance."""

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.outputs.names import COLOURS, NameTable, colour_of, folder_names, number_labels
from av2tsam_cli.outputs.overlay import DEFAULT_STYLE
from av2tsam_cli.values import Frame, FrameSummary, MaskedFrame, SourceMasks

# Machado et al. (2009), severity 1, for linear RGB.
SIMULATIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ (to_xyz / [[0.9505], [1.0], [1.089]]).T
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("vision", SIMULATIONS)
def test_colours_are_told_apart_in_every_vision(vision: str) -> None:
    srgb = np.array(COLOURS) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = lab(np.clip(linear @ np.asarray(SIMULATIONS[vision]).T, 0, 1))
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=2) + 1000 * np.eye(len(COLOURS))
    assert distance.min() > 20
    assert distance[:4, :4].min() > 35


def test_the_first_colour_is_that_of_overlays_without_names() -> None:
    assert colour_of(1) == DEFAULT_STYLE.colour
    assert colour_of(len(COLOURS) + 1) == colour_of(1)


def test_names_are_counted_when_they_have_pixels() -> None:
    table = NameTable()
    labels = np.array([[0, 2], [2, 0]], np.uint8)
    for names, numbers in ((("dog", "cat"), (1, 2)), (("cat", "bird"), (2, 4))):
        table.count(summary(SourceMasks(names, labels, numbers=numbers)))
    table.count(summary(SourceMasks(("cat",), np.ones((2, 2), np.uint8), numbers=(2,))))
    assert table.in_view == [(2, "cat", 2), (4, "bird", 1)]
    assert table.by_number == ["dog", "cat", "", "bird"]


def test_pixels_have_the_numbers_of_their_sources() -> None:
    sources = SourceMasks(("dog", "cat"), np.array([[0, 2], [2, 1]], np.uint8), numbers=(7, 3))
    assert number_labels(sources).tolist() == [[0, 3], [3, 7]]


def summary(sources: SourceMasks) -> FrameSummary:
    frame = Frame(np.zeros((2, 2, 3), np.uint8), 0.0, 0)
    return MaskedFrame(frame, sources.labels > 0, "computed", sources).summary


def test_folders_of_names_can_be_created_on_every_system() -> None:
    names = ["dog", "Dog", "a/b", "a:b", "..", " the dog. ", "names.json", "été 夏", "x" * 300]
    folders = list(folder_names(names))
    assert folders[:6] == ["dog", "Dog (2)", "a_b", "a_b (2)", "_", "the dog"]
    assert folders[6:8] == ["names.json (2)", "été 夏"]
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert max(map(len, folders)) < 80
