"""AVSBench's metrics on cases counted by hand, and against a plain implementation."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from av2tsam_cli.evaluation.metrics import frame_iou, video_f_score, video_iou
from av2tsam_cli.evaluation.options import ScoringProtocol

YES, NO = 9.0, -9.0


def logits_of(mask: Tensor) -> Tensor:
    return torch.where(mask, YES, NO)


def left_half(frames: int = 1, side: int = 4) -> Tensor:
    mask = torch.zeros(frames, side, side, dtype=torch.bool)
    mask[:, :, : side // 2] = True
    return mask


def test_iou_is_intersection_over_union() -> None:
    mask = left_half()
    predicted = mask.clone()
    predicted[:, :, 2] = True  # a third column: 8 shared pixels of 12
    assert frame_iou(logits_of(predicted), mask).tolist() == pytest.approx([8 / 12])


def test_an_empty_frame_is_scored_on_its_background() -> None:
    nothing = torch.zeros(1, 4, 4, dtype=torch.bool)
    quarter = nothing.clone()
    quarter[:, :2, :2] = True
    assert frame_iou(logits_of(nothing), nothing).tolist() == pytest.approx([1.0])
    assert frame_iou(logits_of(quarter), nothing).tolist() == pytest.approx([0.75])


def test_a_logit_of_zero_is_not_foreground() -> None:
    assert frame_iou(torch.zeros(1, 4, 4), left_half()).tolist() == [0.0]


def test_video_iou_is_the_mean_over_frames() -> None:
    masks = left_half(2)
    logits = logits_of(torch.stack([masks[0], ~masks[1]]))
    assert video_iou(logits, masks) == pytest.approx(0.5)


def test_a_perfect_video_has_f_of_one() -> None:
    assert video_f_score(logits_of(left_half(3)), left_half(3)) == pytest.approx(1.0)


def test_f_skips_empty_frames_and_is_zero_if_all_are_empty() -> None:
    masks = torch.cat([left_half(), torch.zeros(1, 4, 4, dtype=torch.bool)])
    logits = logits_of(torch.ones_like(masks))
    # Everything predicted: precision 1/2, recall 1.
    assert video_f_score(logits, masks) == pytest.approx(1.3 * 0.5 / (0.3 * 0.5 + 1))
    assert video_f_score(logits[1:], masks[1:]) == 0.0


@pytest.mark.parametrize("protocol", get_args(ScoringProtocol))
def test_f_agrees_with_a_plain_loop_over_thresholds(protocol: ScoringProtocol) -> None:
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(4, 16, 16, generator=generator)
    masks = torch.rand(4, 16, 16, generator=generator) > 0.7
    assert video_f_score(logits, masks, protocol) == pytest.approx(
        f_by_thresholds(logits, masks, protocol), abs=1e-6
    )


def f_by_thresholds(logits: Tensor, masks: Tensor, protocol: ScoringProtocol) -> float:
    scores = logits.sigmoid() if protocol == "avsbench" else logits
    means = []
    for threshold in torch.linspace(0, 1 - 1e-10, 255):
        values = []
        for score, mask in zip(scores, masks, strict=True):
            predicted = score >= threshold
            hits = float((predicted & mask).sum())
            precision = hits / max(float(predicted.sum()), 1e-20)
            recall = hits / float(mask.sum())
            values.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
        means.append(sum(values) / len(values))
    return max(means)


def test_the_protocols_differ_if_logits_are_outside_the_unit_interval() -> None:
    mask = left_half()
    logits = torch.where(mask, -0.5, -2.0)  # right order, all below every threshold as raw logits
    assert video_f_score(logits, mask, "avsbench") == pytest.approx(1.0)
    assert video_f_score(logits, mask, "reference") == 0.0
