"""Draw when the sources of a scene sound."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from av2tsam_cli.synth.values import SynthSubset, Turns

_ONE_AFTER_THE_OTHER = 0.3
_TWICE = 0.3
_LEAST_S = 0.7
"""Shortest turn, and shortest pause between two turns of a source, off the grid."""
_EDGE_S = 0.5
"""A turn off the grid that begins or ends this close to an end of the scene reaches it."""


def sample_turns(
    rng: np.random.Generator, subset: SynthSubset, sources: int, duration_s: int
) -> list[Turns]:
    """Draw when each source sounds: always (S4), or one after the other or overlapping (MS3).

    All turns start and stop at whole seconds.
    """
    if subset == "s4":
        return [((0.0, float(duration_s)),)] * sources
    if rng.random() < _ONE_AFTER_THE_OTHER and sources > 1:
        cuts = np.sort(rng.choice(np.arange(1, duration_s), sources - 1, replace=False))
        pieces = list(pairwise([0.0, *cuts.astype(float).tolist(), float(duration_s)]))
        return [(pieces[k],) for k in rng.permutation(sources)]
    lengths = rng.integers(1, duration_s + 1, sources)
    starts = [int(rng.integers(0, duration_s + 1 - length)) for length in lengths]
    return [((float(a), float(a + n)),) for a, n in zip(starts, lengths.tolist(), strict=True)]


def sample_turns_off_grid(
    rng: np.random.Generator, subset: SynthSubset, sources: int, duration_s: int
) -> list[Turns]:
    """Draw when each source sounds, like `sample_turns`, with turns that start and stop anywhere.

    The source of S4 may start late or stop early. Sources of MS3 may have two turns.
    """
    if subset == "s4":
        late, early = rng.uniform(-1.5, 1.5, 2)
        return [_turns((late, duration_s - early), duration_s)] * sources
    if rng.random() < _ONE_AFTER_THE_OTHER and sources > 1:
        cuts = _spaced(rng, sources - 1 + int(rng.integers(3)), duration_s)
        pieces = list(pairwise([0.0, *cuts, float(duration_s)]))
        return [
            _turns([time for piece in pieces[k::sources] for time in piece], duration_s)
            for k in rng.permutation(sources)
        ]
    drawn = []
    for _ in range(sources):
        if rng.random() < _TWICE:
            times = _spaced(rng, 4, duration_s)
        else:
            length = rng.uniform(_LEAST_S, duration_s)
            start = rng.uniform(0, duration_s - length)
            times = [start, start + length]
        drawn.append(_turns(times, duration_s))
    return drawn


def _spaced(rng: np.random.Generator, count: int, duration_s: float) -> list[float]:
    """Draw times at least `_LEAST_S` apart from each other and from the scene's ends."""
    free = np.sort(rng.uniform(0, duration_s - (count + 1) * _LEAST_S, count))
    return [float(time) for time in free + _LEAST_S * np.arange(1, count + 1)]


def _turns(times: Sequence[float], duration_s: int) -> Turns:
    """Return starts and stops as turns, in whole milliseconds, within the scene."""
    start, *inner, stop = (round(float(time), 3) for time in times)
    start = 0.0 if start < _EDGE_S else start
    stop = float(duration_s) if stop > duration_s - _EDGE_S else stop
    edges = [start, *inner, stop]
    return tuple(zip(edges[::2], edges[1::2], strict=True))
