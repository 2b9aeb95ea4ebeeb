"""Names beside masks: inside the picture, apart from each other, and steady."""

import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.outputs.labels import Box, Label, LabelPainter, free_box, make_plate, printable

RED = (255, 0, 0)


def drawn(*labels: Label, size: tuple[int, int] = (360, 640)) -> npt.NDArray[np.uint8]:
    picture = np.full((*size, 3), 200, np.uint8)
    LabelPainter().draw(picture, list(labels), 0.0)
    return picture


def plate_of(picture: npt.NDArray[np.uint8]) -> Box:
    """Left, top, width and height of what was drawn on a grey picture."""
    rows, columns = np.nonzero((picture != 200).any(axis=2))
    top, left = rows.min(), columns.min()
    return int(left), int(top), int(columns.max() - left + 1), int(rows.max() - top + 1)


def test_a_name_stands_above_what_it_names() -> None:
    left, top, width, height = plate_of(drawn(Label("dog", RED, [(300, 150, 80, 60)])))
    assert left + width / 2 == pytest.approx(340, abs=1)
    assert 150 - height / 2 < top + height < 150


@pytest.mark.parametrize(
    "box", [(0, 0, 9, 9), (631, 0, 9, 9), (0, 351, 9, 9), (631, 351, 9, 9), (0, 0, 640, 360)]
)
def test_a_name_stays_inside_the_picture(box: Box) -> None:
    left, top, width, height = plate_of(drawn(Label("acoustic guitar", RED, [box])))
    assert (width, height) == make_plate("acoustic guitar", RED, 15, 640).size  # type: ignore[union-attr]
    assert left >= 0
    assert left + width <= 640
    assert top >= 0
    assert top + height <= 360


@pytest.mark.parametrize(("side", "height_px"), [(360, 22), (1080, 65), (2160, 130)])
def test_the_text_grows_with_the_frame(side: int, height_px: int) -> None:
    label = Label("dog", RED, [(side // 2, side // 2, 50, 50)])
    height = plate_of(drawn(label, size=(side, side)))[3]
    assert height == pytest.approx(height_px, rel=0.15)


def test_names_at_one_place_do_not_overlap() -> None:
    places: list[Box] = []
    for _ in range(4):
        places.append(free_box((100, 40, 80, 20), places, (640, 360)))
    tops = sorted(top for _, top, _, _ in places)
    assert tops == [20, 40, 60, 80]


def test_names_overlap_only_where_there_is_no_room() -> None:
    taken = [(0, 0, 60, 20)]
    assert free_box((0, 0, 60, 20), taken, (60, 30)) == (0, 0, 60, 20)


def test_a_name_follows_smoothly_and_returns_at_once() -> None:
    painter = LabelPainter()

    def left_at(x: int, time_s: float) -> int:
        picture = np.full((360, 640, 3), 200, np.uint8)
        painter.draw(picture, [Label("dog", RED, [(x, 150, 80, 60)])], time_s)
        return plate_of(picture)[0]

    start = left_at(100, 0.0)
    trembling = [left_at(100 + 4 * (k % 2), k / 25) for k in range(1, 26)]
    assert max(trembling) - min(trembling) <= 2
    jump = [left_at(400, 1 + k / 25) for k in range(1, 26)]
    assert jump == sorted(jump)
    assert jump[0] < start + 100
    assert jump[-1] == pytest.approx(start + 300, abs=5)
    assert left_at(100, 5.0) == start


def test_a_name_stays_at_one_of_two_equal_parts() -> None:
    painter = LabelPainter()
    lefts = []
    for k in range(25):
        picture = np.full((360, 640, 3), 200, np.uint8)
        parts = [(100, 150, 50 + k % 2, 50), (400, 150, 50, 50)]
        painter.draw(picture, [Label("dog", RED, parts)], k / 25)
        lefts.append(plate_of(picture)[0])
    assert max(lefts) - min(lefts) <= 2


def test_long_names_are_shortened_and_tiny_pictures_have_none() -> None:
    label = Label("a crowd cheering and clapping in a stadium", RED, [(50, 50, 9, 9)])
    left, _, width, _ = plate_of(drawn(label, size=(100, 120)))
    assert left >= 0
    assert 60 < width <= 120
    assert (drawn(label, size=(8, 8)) == 200).all()


def test_letters_that_the_font_lacks() -> None:
    assert printable("éTÉ über") == "eTE uber"
    assert printable("夏 dog") == "? dog"
