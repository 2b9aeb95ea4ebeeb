"""AVSBench-semantic's metrics, mIoU and F per class, computed from counts. No files are read.

Source: Zhou et al., "Audio-Visual Segmentation with Semantics", arXiv 2301.13190, and the
AVSBench repository, `avs_scripts/avss/test.py` and `utils/compute_color_metrics.py`. In each frame,
IoU and F of a class are computed from its pixels, at 224 x 224. A class's score is the mean over
the frames in which it occurs, in the true or the predicted mask; the final score is the mean over
all 71 classes, background included, and a class that occurs in no frame counts as 0.

AVSBench's loader pads videos of five seconds to ten frames, and its script scores the added frames,
which contain only background, too. Only labelled frames are scored here.

Letters: T frames of one video, H rows, W columns, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from av2tsam_cli.avsbench_format import AVSS_CLASSES, FRAME_PX
from av2tsam_cli.evaluation.metrics import BETA_SQUARED
from av2tsam_cli.values import Float64Array, UInt8Array

CLASSES = len(AVSS_CLASSES)
"""C, background included."""
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of the classes in the frames of one or more videos."""

    iou: Float64Array
    """Sum of the IoU over the frames in which a class occurs, float64, (C,)."""
    f_score: Float64Array
    """Sum of F over the same frames, float64, (C,)."""
    frames: Int64Array
    """Number of these frames, int64, (C,)."""

    def means(self) -> tuple[Float64Array, Float64Array]:
        """Return IoU and F of each class, means over its frames; 0 without frames; both (C,)."""
        frames = np.maximum(self.frames, 1)
        return self.iou / frames, self.f_score / frames


def score_classes(predicted: UInt8Array, true: UInt8Array) -> ClassScores:
    """Compare the predicted with the true classes of one video.

    Args:
        predicted: Labels, uint8, (T, H, W).
        true: Labels, uint8, (T, H, W).
    """
    counts = [
        _count_pixels(*(resize_labels(one, (FRAME_PX, FRAME_PX)) for one in pair))
        for pair in zip(predicted, true, strict=True)
    ]
    both, found, wanted = np.stack(counts, axis=1)  # (T, C) each
    either = found + wanted - both
    # F = (1 + b) P R / (b P + R) with P = both / found and R = both / wanted
    weighted = found + BETA_SQUARED * wanted
    return ClassScores(
        iou=(both / np.maximum(either, 1)).sum(0),
        f_score=((1 + BETA_SQUARED) * both / np.maximum(weighted, 1)).sum(0),
        frames=np.count_nonzero(either, axis=0),
    )


def add_classes(videos: Sequence[ClassScores]) -> ClassScores:
    """Return the scores of several videos together."""
    return ClassScores(
        iou=np.sum([video.iou for video in videos], axis=0),
        f_score=np.sum([video.f_score for video in videos], axis=0),
        frames=np.sum([video.frames for video in videos], axis=0),
    )


def resize_labels(labels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resize labels (h, w) to (H, W) as AVSBench does: each pixel is the nearest one, as in PIL."""
    if labels.shape == size:
        return labels
    return np.asarray(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def _count_pixels(predicted: UInt8Array, true: UInt8Array) -> Int64Array:
    """Count the pixels of each class that are in both masks, predicted, and true; (3, C)."""
    groups = (predicted[predicted == true], predicted, true)
    return np.stack([np.bincount(group.ravel(), minlength=CLASSES) for group in groups])
