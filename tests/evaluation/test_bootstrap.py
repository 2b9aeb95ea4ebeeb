"""Bootstrap confidence intervals."""

import numpy as np
import pytest

from av2tsam_cli.evaluation.bootstrap import interval, resampled_means


def test_the_interval_is_that_of_the_normal_approximation_for_many_videos() -> None:
    values = np.random.default_rng(1).beta(5, 2, (500, 1))
    means = resampled_means(values, seed=0)
    half = 1.96 * values.std() / np.sqrt(500)
    assert interval(means[:, 0]) == pytest.approx(
        [values.mean() - half, values.mean() + half], abs=0.1 * half
    )


def test_means_are_those_of_drawn_videos() -> None:
    """Each sample has as many videos as the original, and its columns are of the same videos."""
    values = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    means = resampled_means(values, seed=0)
    assert set(means[:, 0]) == {0.0, 0.25, 0.5, 0.75, 1.0}
    np.testing.assert_allclose(means.sum(1), 1.0)


def test_the_seed_determines_the_samples() -> None:
    values = np.random.default_rng(2).random((20, 3))
    first, again, other = (resampled_means(values, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_videos_that_score_the_same_leave_no_doubt() -> None:
    assert interval(resampled_means(np.full((7, 1), 0.5), seed=0)[:, 0]) == [0.5, 0.5]
