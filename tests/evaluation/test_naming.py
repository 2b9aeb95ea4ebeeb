"""Naming precision, recall and F1, counted by hand."""

import numpy as np
import pytest

from av2tsam_cli.evaluation.naming import NamingCounts, add_names, count_names, labels_in

DOG, CAR, BELL = 1, 2, 3


def test_names_are_counted_once_per_second() -> None:
    given = [{DOG}, {DOG, CAR}, set(), {BELL}]
    true = [{DOG}, {DOG}, {CAR}, set()]
    counts = count_names(given, true)
    assert counts == NamingCounts(right=2, given=4, true=3)
    assert (counts.precision, counts.recall) == (2 / 4, 2 / 3)
    assert counts.f1 == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert add_names([counts, count_names([{CAR}], [{CAR}])]) == NamingCounts(3, 5, 4)


def test_silence_without_names_is_right() -> None:
    counts = count_names([set(), set()], [set(), set()])
    assert (counts.precision, counts.recall, counts.f1) == (1.0, 1.0, 1.0)
    assert count_names([{DOG}], [set()]).f1 == 0.0


def test_the_names_of_a_frame_are_those_of_its_pixels() -> None:
    labels = np.zeros((2, 4, 5), np.uint16)
    labels[1, :2], labels[1, 3, 4] = 300, BELL
    assert labels_in(labels) == [set(), {300, BELL}]
