"""Find when the sound sources of a recording change, from CLAP embeddings and log-mel spectra.

These are functions of arrays: `find_changes` finds changes to about a tenth of a second from
embeddings of overlapping windows, `refine_change` moves each to where the spectra change, and
`find_silences` only uses the level. Letters: N windows, A width of the embeddings, T spectra, M mel
bands.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from av2tsam_cli.values import Float32Array, Float64Array

WINDOW_S = 1.0
"""Length of the windows that are embedded."""
HOP_S = 0.2
"""Distance between the starts of these windows."""
STEP_S = 0.04
"""Distance between the possible times of a change."""
SHORTEST_S = 0.2
"""Shortest time between two changes."""
PENALTY = 0.12
"""Minimum improvement for another change: squared distance of embeddings, relative to their norm,
times seconds."""
SHORT_S = 1.0
SHORT_PENALTY = 0.1
"""Additional penalty for a piece that is shorter than SHORT_S, in proportion to the difference,
because CLAP recognises short sounds less well."""
DAMPING = 1e-3
"""Regularisation, without which nearby changes could have large jumps of opposite sign."""

SILENCE_S = 1.0
"""Shortest silence that ends a sound; a dog is also quiet between two barks."""
LEVEL_S = 0.02
"""Seconds over which the level is measured."""

REACH_S = 0.5
"""Maximum distance by which `refine_change` moves a change."""
UNSURE_S = 0.15
"""Spectra closer than this to a change are not used as examples."""
EXAMPLES_S = 1.5
"""Seconds before and after a change from which examples are taken."""
MIN_EXAMPLES = 8
"""Minimum number of examples on each side; with fewer, a change is not moved."""
SPREAD_DB = 3.0
"""Standard deviation of spectra of the same sound, per band."""
RANGE_DB = 60.0
"""Spectra this far below the loudest value count as silent."""
OFFSET_S = 0.25
"""Standard deviation of the error of `find_changes`."""
MAX_EVIDENCE = 6.0
"""Maximum log-likelihood ratio of one spectrum, so that no single spectrum decides."""


def find_changes(embeddings: Float32Array, spans_s: Float64Array) -> list[float]:
    """Return the times at which the sources change, in seconds, between the first and last sample.

    The embedding of a window across a change is between the embeddings of the sounds before and
    after it, in proportion to their shares of the window. So the embeddings are fitted by a
    constant and a ramp for each change. Changes are added one by one as long as this improves the
    fit enough; then those are removed that do not.

    Args:
        embeddings: Embeddings of N windows, (N, A).
        spans_s: Start and end of each window in seconds, (N, 2). Shorter windows count less.
    """
    if not len(embeddings):
        return []
    first, last = spans_s.min() + SHORTEST_S / 2, spans_s.max() - SHORTEST_S / 2
    times = np.arange(first, last, STEP_S)
    fit = _RampFit(embeddings, spans_s, times)
    chosen: list[int] = []
    error = fit.error(chosen)
    while (candidate := fit.best_addition(chosen)) is not None:
        more = fit.shift(sorted([*chosen, candidate]))
        if error - fit.error(more) < PENALTY:
            break
        chosen, error = more, fit.error(more)
    while chosen:
        fewer = min((chosen[:k] + chosen[k + 1 :] for k in range(len(chosen))), key=fit.error)
        if fit.error(fewer) - error >= PENALTY:
            break
        chosen = fit.shift(fewer)
        error = fit.error(chosen)
    return [float(times[k]) for k in chosen]


class _RampFit:
    """Least-squares fits of embeddings by a constant and a ramp for each change."""

    def __init__(
        self, embeddings: Float32Array, spans_s: Float64Array, times: Float64Array
    ) -> None:
        values = embeddings.astype(np.float64)
        values /= np.median(np.linalg.norm(values, axis=1)) or 1.0
        if len(values) < values.shape[1]:  # only scalar products matter: N coordinates are enough
            values = np.linalg.qr(values.T).R.T
        start_s, end_s = spans_s.T[:, :, None]
        length_s = end_s - start_s
        ramps = np.clip((end_s - times) / length_s, 0, 1)
        weight = np.sqrt(length_s / WINDOW_S * HOP_S)
        basis = weight * np.column_stack([np.ones(len(values)), ramps])
        values *= weight
        self.gram = basis.T @ basis
        self.products = basis.T @ values
        self.power = float(np.square(values).sum())
        self.min_distance = round(SHORTEST_S / STEP_S)

    def error(self, chosen: Sequence[int]) -> float:
        """Return the squared error with these changes, plus the penalty for short pieces."""
        rows = [0, *(k + 1 for k in chosen)]
        squares = self.power - float(np.sum(self.products[rows] * self._solve(rows)))
        short = np.maximum(0, 1 - np.diff(chosen) * STEP_S / SHORT_S).sum()
        return squares + SHORT_PENALTY * float(short)

    def best_addition(self, chosen: Sequence[int]) -> int | None:
        """Return the position where another change reduces the error most; None if none is free."""
        rows = [0, *(k + 1 for k in chosen)]
        residual = self.products - self.gram[:, rows] @ self._solve(rows)
        within = np.linalg.solve(self._gram(rows), self.gram[rows])
        own = np.diag(self.gram) - np.sum(self.gram[rows] * within, axis=0) + 20 * DAMPING
        gain: Float64Array = np.square(residual).sum(axis=1)[1:] / own[1:]
        for k in chosen:
            gain[max(0, k - self.min_distance + 1) : k + self.min_distance] = 0
        best = int(gain.argmax()) if len(gain) else 0
        return best if len(gain) and gain[best] > 0 else None

    def shift(self, chosen: list[int]) -> list[int]:
        """Move each change by up to two positions to where the error is smallest, twice."""
        for _ in range(2):
            for n in range(len(chosen)):
                chosen = min(self._moves(chosen, n), key=self.error)
        return chosen

    def _moves(self, chosen: list[int], n: int) -> Iterator[list[int]]:
        """Yield the positions as they are, and with the n-th one moved where there is room."""
        yield chosen
        before, after = chosen[:n], chosen[n + 1 :]
        for to in (chosen[n] + by for by in (-2, -1, 1, 2)):
            room = all(abs(to - k) >= self.min_distance for k in before + after)
            if room and 0 <= to < len(self.gram) - 1:
                yield [*before, to, *after]

    def _gram(self, rows: list[int]) -> Float64Array:
        damped: Float64Array = self.gram[np.ix_(rows, rows)] + DAMPING * np.eye(len(rows))
        return damped

    def _solve(self, rows: list[int]) -> Float64Array:
        solved: Float64Array = np.linalg.solve(self._gram(rows), self.products[rows])
        return solved


def find_silences(samples: Float32Array, rate_hz: int, silence_dbfs: float | None) -> list[float]:
    """Return the times at which silences of at least SILENCE_S start and end, in seconds.

    The start and the end of the samples are not included.

    Args:
        samples: Mono samples, (n,).
        rate_hz: Samples per second.
        silence_dbfs: Level below which sound counts as silence; None for no silences.
    """
    size = round(LEVEL_S * rate_hz)
    count = len(samples) // size
    if silence_dbfs is None or not count:
        return []
    power = np.square(samples[: count * size], dtype=np.float64).reshape(count, size).mean(axis=1)
    quiet = power < 10 ** (silence_dbfs / 10)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]])))
    long = [
        edge
        for start, stop in edges.reshape(-1, 2)
        if stop - start >= SILENCE_S / LEVEL_S
        for edge in (start, stop)
    ]
    return [float(edge * LEVEL_S) for edge in long if 0 < edge < count]


def refine_change(
    spectra: Float32Array, hop_s: float, change_s: float, before_s: float, after_s: float
) -> float:
    """Move a change to where the spectra change.

    Every spectrum near the change is compared with examples from before and after it. The change is
    moved so that the spectra before it are most like the examples before, and the spectra after it
    like the examples after. Examples are compared one by one, so that the examples of a sound with
    pauses can include the pauses.

    Args:
        spectra: Log-mel spectra in dB, (T, M), every `hop_s` from time 0.
        hop_s: Seconds between spectra.
        change_s: Time of the change, in seconds.
        before_s: Time of the previous change, or 0.
        after_s: Time of the next change, or the end.
    """
    times = np.arange(len(spectra)) * hop_s
    first = max(change_s - REACH_S, before_s + SHORTEST_S / 2)
    last = min(change_s + REACH_S, after_s - SHORTEST_S / 2)
    near = (times >= first) & (times < last)
    before = (times >= max(before_s, change_s - EXAMPLES_S)) & (times < change_s - UNSURE_S)
    after = (times >= change_s + UNSURE_S) & (times < min(after_s, change_s + EXAMPLES_S))
    if min(before.sum(), after.sum()) < MIN_EXAMPLES or not near.any():
        return change_s
    evidence = _likeness(spectra[near], spectra[before]) - _likeness(spectra[near], spectra[after])
    evidence = np.clip(evidence, -MAX_EVIDENCE, MAX_EVIDENCE)
    total = np.concatenate([[0.0], np.cumsum(evidence)])
    starts = np.append(times[near], times[near][-1] + hop_s)
    return float(starts[np.argmax(total - np.square((starts - change_s) / OFFSET_S) / 2)])


def _likeness(spectra: Float32Array, examples: Float32Array) -> Float64Array:
    """Return log densities (T,), up to a constant, of a mixture around the examples."""
    squares = np.square(spectra).sum(1)[:, None] + np.square(examples).sum(1)
    distance = (squares - 2 * spectra @ examples.T) / (2 * SPREAD_DB**2 * np.sqrt(spectra.shape[1]))
    least = distance.min(axis=1)
    return cast("Float64Array", np.log(np.exp(least[:, None] - distance).mean(axis=1)) - least)
