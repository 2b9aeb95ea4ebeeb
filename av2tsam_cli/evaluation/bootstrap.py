"""Bootstrap confidence intervals of scores that are means over videos.

Source: Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; percentile intervals.
"""

import numpy as np

from av2tsam_cli.values import Float64Array

CONFIDENCE = 0.95
"""Probability that an interval is to contain the score on other videos of the same kind."""
RESAMPLES = 2000
"""Samples of the videos, each as large as the original and drawn with replacement."""


def resampled_means(values: Float64Array, seed: int) -> Float64Array:
    """Average the values of randomly drawn videos.

    Args:
        values: One row per video, float64, (videos, values).
        seed: Seed of the draws.

    Returns:
        Means, float64, (RESAMPLES, values).
    """
    videos = len(values)
    draws = np.random.default_rng(seed).multinomial(videos, [1 / videos] * videos, RESAMPLES)
    # Not a matrix product, whose last bits depend on the number of threads.
    sums: Float64Array = np.einsum("bv,vk->bk", draws.astype(np.float64), values)
    return sums / videos


def interval(samples: Float64Array) -> list[float]:
    """Return the lower and the upper end of the interval, given resampled scores (RESAMPLES,)."""
    tail = 50.0 * (1.0 - CONFIDENCE)
    return [float(end) for end in np.percentile(samples, [tail, 100.0 - tail])]
