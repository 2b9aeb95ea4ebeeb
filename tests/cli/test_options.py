from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer

from av2tsam_cli.cli.options import (
    decibels,
    expand,
    probability,
    rate,
    seconds,
)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (seconds, "90", 90.0),
        (seconds, "1:30.5", 90.5),
        (seconds, "01:02:03", 3723.0),
        (rate, "25", Fraction(25)),
        (rate, "12.5", Fraction(25, 2)),
        (rate, "30000/1001", Fraction(30000, 1001)),
        (decibels, "-45.5", -45.5),
        (decibels, "off", float("-inf")),
        (probability, "0.25", 0.25),
    ],
)
def test_words_become_values(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (seconds, "1:2:3:4"),
        (seconds, "-5"),
        (seconds, "soon"),
        (rate, "0"),
        (rate, "-2"),
        (rate, "1/0"),
        (decibels, "loud"),
        (probability, "1"),
        (probability, "half"),
    ],
)
def test_other_words_are_refused_with_what_would_do(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(typer.BadParameter, match="give"):
        read(text)


def test_quoted_patterns_are_expanded_in_order_and_files_come_once(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "._a.mp4", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    found = expand([str(tmp_path / "*.mp4"), str(tmp_path / "b.mp4")])
    assert found == (tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    for name in ("take[1].mp4", "take1.mp4"):
        (tmp_path / name).touch()
    assert expand([str(tmp_path / "take[1].mp4")]) == (tmp_path / "take[1].mp4",)


def test_a_pattern_that_matches_nothing_stays_to_be_reported() -> None:
    assert expand(["/nowhere/*.mp4"]) == (Path("/nowhere/*.mp4"),)
