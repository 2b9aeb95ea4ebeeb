import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from av2tsam_cli.masks import logit, mean_scores, native_labels, native_probability


def ramp(height: int, width: int) -> torch.Tensor:
    """Logits that increase from left to right, (1, h, w)."""
    return torch.linspace(-4.0, 4.0, width).expand(1, height, width)


def resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def mask_of(
    logits: torch.Tensor, size: tuple[int, int], threshold: float = 0.5
) -> npt.NDArray[np.bool_]:
    return native_labels(logits, size, threshold, resize=resize) > 0


@pytest.mark.parametrize("size", [(37, 51), (3, 200)])
def test_a_mask_has_the_size_of_its_frame(size: tuple[int, int]) -> None:
    mask = mask_of(torch.ones(1, 8, 8), size)
    assert mask.shape == size
    assert mask.dtype == np.bool_
    assert mask.all()


def test_the_mask_is_where_the_probability_is_above_the_threshold() -> None:
    probability = native_probability(ramp(8, 9), (16, 180), resize=resize)
    assert (probability.shape, probability.dtype) == ((16, 180), np.float32)
    assert (probability.min(), probability.max()) == (
        pytest.approx(1 / (1 + np.exp(4.0))),
        pytest.approx(1 / (1 + np.exp(-4.0))),
    )
    for threshold in (0.1, 0.5, 0.7):
        assert np.array_equal(mask_of(ramp(8, 9), (16, 180), threshold), probability > threshold)


def test_the_edge_is_where_the_probability_equals_the_threshold() -> None:
    mask = mask_of(ramp(8, 9), (16, 180), threshold=0.5)
    assert mask[0].sum() == pytest.approx(90, abs=1)
    mask = mask_of(ramp(8, 9), (16, 180), threshold=1 / (1 + np.exp(-2.0)))
    assert mask[0].sum() == pytest.approx(50, abs=2)  # a logit of 2 lies at 3/4 + half a cell


def test_resizing_before_the_threshold_makes_edges_smooth() -> None:
    logits = torch.tensor([[[-1.0, 3.0], [-3.0, 1.0]]])
    mask = mask_of(logits, (64, 64))
    assert len({int(row.sum()) for row in mask}) > 8  # a slanted edge, not a step


def test_a_frame_smaller_than_the_logits() -> None:
    mask = mask_of(ramp(32, 32), (5, 6))
    assert mask.tolist() == [[False] * 3 + [True] * 3] * 5


def test_logits_at_the_threshold_give_an_empty_mask() -> None:
    mask = mask_of(torch.zeros(1, 4, 4), (10, 12), threshold=0.5)
    assert not mask.any()  # exactly the threshold is not above it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_masks_of_float32(dtype: torch.dtype) -> None:
    logits = torch.linspace(-2.0, 2.0, 25).reshape(1, 5, 5).to(dtype)
    assert np.array_equal(mask_of(logits, (20, 20)), mask_of(logits.float(), (20, 20)))


def test_logit_inverts_the_sigmoid() -> None:
    for probability in (0.1, 0.5, 0.9):
        assert float(torch.sigmoid(torch.tensor(logit(probability)))) == pytest.approx(probability)


def test_scores_are_the_mean_probabilities_of_each_source_where_it_is_seen() -> None:
    logits = torch.full((3, 2, 2), -5.0)
    logits[0, 0] = 2.0
    logits[1, 0, 0] = 3.0  # in front of the first source
    probability = logits.sigmoid()
    score, scores = mean_scores(logits, 0.5)
    assert score == pytest.approx(float((probability[1, 0, 0] + probability[0, 0, 1]) / 2))
    assert scores == pytest.approx(
        (torch.sigmoid(torch.tensor(2.0)).item(), torch.sigmoid(torch.tensor(3.0)).item(), 0.0)
    )
    assert mean_scores(logits - 10, 0.5) == (0.0, (0.0, 0.0, 0.0))
    assert mean_scores(None, 0.5) == (0.0, ())
