"""Class mIoU and F: hand-made cases, and the protocol's definition counted class by class."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from av2tsam_cli.evaluation.semantic import CLASSES, add_classes, score_classes

Labels = npt.NDArray[np.uint8]
SQUARE = (224, 224)


def halves(left: int, right: int) -> Labels:
    """Return one frame (1, 224, 224) with two classes."""
    frame = np.full((1, *SQUARE), left, np.uint8)
    frame[..., 112:] = right
    return frame


def by_definition(predicted: Labels, true: Labels) -> tuple[float, float]:
    """Return class mIoU and F of frames (T, 224, 224), as the protocol defines them."""
    ious: dict[int, list[float]] = {k: [] for k in range(CLASSES)}
    scores: dict[int, list[float]] = {k: [] for k in range(CLASSES)}
    for k in range(CLASSES):
        for found, wanted in zip(predicted == k, true == k, strict=True):
            if not (found | wanted).any():
                continue  # the class does not occur in this frame
            hits = (found & wanted).sum()
            ious[k].append(hits / (found | wanted).sum())
            precision = hits / found.sum() if found.any() else 0.0
            recall = hits / wanted.sum() if wanted.any() else 0.0
            total = 0.3 * precision + recall
            scores[k].append(1.3 * precision * recall / total if total else 0.0)
    miou, f_score = (
        sum(float(np.mean(values)) for values in each.values() if values) / CLASSES
        for each in (ious, scores)
    )
    return miou, f_score


def test_half_of_an_object_is_found() -> None:
    """A dog covers the frame, and its left half is found; precision is 1 and recall 0.5."""
    scores = score_classes(halves(17, 0), halves(17, 17))
    iou, f_score = scores.means()
    assert scores.frames.nonzero()[0].tolist() == [0, 17]  # the background is found, wrongly
    assert (iou[0], f_score[0]) == (0.0, 0.0)
    assert iou[17] == 0.5
    assert f_score[17] == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))


def test_a_wrong_name_costs_both_classes() -> None:
    iou, f_score = score_classes(halves(0, 11), halves(0, 12)).means()
    assert [iou[0], iou[11], iou[12]] == [1.0, 0.0, 0.0]
    assert [f_score[0], f_score[11], f_score[12]] == [1.0, 0.0, 0.0]


def test_a_class_is_averaged_over_the_frames_in_which_it_occurs() -> None:
    true = np.concatenate([halves(0, 5), halves(0, 0), halves(0, 0)])
    predicted = np.concatenate([halves(0, 5), halves(0, 5), halves(0, 0)])
    scores = score_classes(predicted, true)
    assert scores.frames[[0, 5, 6]].tolist() == [3, 2, 0]
    assert scores.means()[0][[0, 5, 6]].tolist() == [pytest.approx((1 + 0.5 + 1) / 3), 0.5, 0.0]


def test_random_frames_score_as_the_protocol_defines() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice([0, 0, 3, 17, 70], (6, *SQUARE)).astype(np.uint8)
    predicted = np.where(rng.random(true.shape) < 0.7, true, rng.choice([0, 3, 40], true.shape))
    true[2], predicted[3] = 0, 0
    videos = [
        score_classes(predicted[rows].astype(np.uint8), true[rows])
        for rows in (slice(0, 1), slice(1, 6))
    ]
    found = [means.mean() for means in add_classes(videos).means()]
    assert found == pytest.approx(by_definition(predicted.astype(np.uint8), true))


def test_frames_are_scored_at_224_pixels() -> None:
    """As in AVSBench's loader, masks of another size are resized by PIL's rule."""
    rng = np.random.default_rng(1)
    true = rng.choice([0, 9], (1, 90, 160)).astype(np.uint8)
    predicted = rng.choice([0, 9], (1, 90, 160)).astype(np.uint8)
    small = [
        np.asarray(Image.fromarray(one[0]).resize(SQUARE, Image.Resampling.NEAREST))[None]
        for one in (predicted, true)
    ]
    found = [means.mean() for means in score_classes(predicted, true).means()]
    assert found == pytest.approx(by_definition(small[0], small[1]))
