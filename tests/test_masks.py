import numpy as np
import pytest
import torch

from av2tsam_cli.masks import logit, native_masks


def ramp(height: int, width: int) -> torch.Tensor:
    """Logits that grow from left to right, (1, 1, h, w)."""
    return torch.linspace(-4.0, 4.0, width).expand(1, 1, height, width)


def test_each_mask_has_its_own_frames_size() -> None:
    logits = torch.ones(2, 1, 8, 8)
    first, second = native_masks(logits, [(37, 51), (3, 200)])
    assert (first.shape, second.shape) == ((37, 51), (3, 200))
    assert first.dtype == np.bool_
    assert first.all()
    assert second.all()


def test_an_edge_lies_where_the_probability_is_the_threshold() -> None:
    (mask,) = native_masks(ramp(8, 9), [(16, 180)], threshold=0.5)
    assert mask[0].sum() == pytest.approx(90, abs=1)
    (mask,) = native_masks(ramp(8, 9), [(16, 180)], threshold=1 / (1 + np.exp(-2.0)))
    assert mask[0].sum() == pytest.approx(50, abs=2)  # a logit of 2 lies at 3/4 + half a cell


def test_enlarging_comes_before_the_threshold_so_that_edges_are_smooth() -> None:
    logits = torch.tensor([[[[-1.0, 3.0], [-3.0, 1.0]]]])
    (mask,) = native_masks(logits, [(64, 64)])
    assert len({int(row.sum()) for row in mask}) > 8  # a slanted edge, not a step


def test_a_frame_smaller_than_the_logits_works_too() -> None:
    (mask,) = native_masks(ramp(32, 32), [(5, 6)])
    assert mask.tolist() == [[False] * 3 + [True] * 3] * 5


def test_logits_that_stay_below_give_an_empty_mask() -> None:
    (mask,) = native_masks(torch.full((1, 1, 4, 4), 0.0), [(10, 12)], threshold=0.5)
    assert not mask.any()  # exactly the threshold is not above it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_masks_of_float32(dtype: torch.dtype) -> None:
    logits = torch.linspace(-2.0, 2.0, 25).reshape(1, 1, 5, 5).to(dtype)
    half, full = native_masks(logits, [(20, 20)]), native_masks(logits.float(), [(20, 20)])
    assert np.array_equal(half[0], full[0])


def test_logit_inverts_the_sigmoid() -> None:
    for probability in (0.1, 0.5, 0.9):
        assert float(torch.sigmoid(torch.tensor(logit(probability)))) == pytest.approx(probability)


def test_more_sizes_than_masks_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        native_masks(torch.zeros(1, 1, 2, 2), [(2, 2), (2, 2)])
