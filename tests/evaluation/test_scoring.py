"""Mean scores."""

import pytest

from av2tsam_cli.evaluation.scoring import VideoScore, mean_scores


def test_the_mean_is_over_videos_and_the_same_in_any_order() -> None:
    scores = [VideoScore(f"{k}", None, k % 3 + 1, 1 / (k + 3), 1 / (k + 7)) for k in range(100)]
    summary = mean_scores(scores)
    assert summary.miou == pytest.approx(sum(1 / (k + 3) for k in range(100)) / 100)
    assert (summary.videos, summary.frames) == (100, 199)
    assert mean_scores(reversed(scores)) == summary
    assert mean_scores(scores[1::2] + scores[::2]) == summary


def test_without_videos_there_is_no_mean() -> None:
    with pytest.raises(ValueError, match="no videos"):
        mean_scores([])
