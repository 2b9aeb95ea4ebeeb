"""Scores of several videos together."""

import pytest

from av2tsam_cli.evaluation.scoring import VideoScore, summarise


def test_the_mean_is_over_videos_and_the_same_in_any_order() -> None:
    scores = [VideoScore(f"{k}", None, k % 3 + 1, 1 / (k + 3), 1 / (k + 7)) for k in range(100)]
    summary = summarise(scores)
    assert summary.miou == pytest.approx(sum(1 / (k + 3) for k in range(100)) / 100)
    assert (summary.videos, summary.frames) == (100, 199)
    assert summarise(reversed(scores)) == summary
    assert summarise(scores[1::2] + scores[::2]) == summary


def test_no_videos_have_no_score() -> None:
    with pytest.raises(ValueError, match="no videos"):
        summarise([])
