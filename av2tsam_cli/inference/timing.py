"""Cut the sound of a video into pieces at the times at which its sources change.

The paper gives every frame the whole second of sound that it falls into. A second with a change
inside it contains both what was before and what comes after. Here, the sound is cut at the changes
first, and no window reaches across one.
"""

import math
from collections.abc import Generator, Iterable

import numpy as np
import torch

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.timeline.changes import (
    HOP_S,
    RANGE_DB,
    SHORTEST_S,
    WINDOW_S,
    find_changes,
    find_silences,
    refine_change,
)
from av2tsam_cli.timeline.schedule import CLOCK_SLACK_S
from av2tsam_cli.values import AudioWindow, Float32Array, level_dbfs

BLOCK_S = 8.0
"""Seconds of new sound in which changes are searched at once."""
MARGIN_S = 3.0
"""Seconds before and after these that are searched with them."""
NEAR_SILENCE_S = 0.5
"""A change closer than this to the edge of a silence is that edge."""
EDGE_S = (0.4, 0.6, 0.8)
"""Lengths of further windows at the start and at the end of the sound, where fewer overlap."""
AVERAGED_S = 2.0
"""Windows of a piece that are at most this far apart are averaged."""
BANDS = 32
"""Bands of the spectra that are compared; neighbouring mel bands are averaged."""


def cut_at_changes(
    seconds: Iterable[AudioWindow],
    clap: ClapEmbedder,
    *,
    silence_dbfs: float | None,
    context_s: float = WINDOW_S,
) -> Generator[AudioWindow, None, None]:
    """Yield windows that contain no change of the sound sources, looking up to 11 seconds ahead.

    A piece of sound between two changes is covered by windows of one second; one that is shorter is
    repeated until it fills a second. The windows come with embeddings, or with their context.

    Args:
        seconds: The sound, one window per second.
        clap: The audio encoder.
        silence_dbfs: Sound below this level is silent; None if no sound is.
        context_s: Seconds of the piece around each window that are heard together: if more than
            one, windows have a `context`, else an `embedding`.
    """
    cutter: _Cutter | None = None
    for second in seconds:
        if cutter is not None and second.index != cutter.next_second:  # a gap
            yield from cutter.advance(cutter.end_s, last=True)
            cutter = None
        if cutter is None:
            cutter = _Cutter(second, clap, silence_dbfs, context_s)
        cutter.append(second)
        if cutter.end_s - cutter.searched_s >= BLOCK_S + MARGIN_S:
            yield from cutter.advance(cutter.end_s - MARGIN_S)
    if cutter is not None:
        yield from cutter.advance(cutter.end_s, last=True)


class _Cutter:
    """Cuts contiguous seconds of sound. Times are seconds of the presentation."""

    def __init__(
        self, first: AudioWindow, clap: ClapEmbedder, silence_dbfs: float | None, context_s: float
    ) -> None:
        self.clap, self.silence_dbfs, self.context_s = clap, silence_dbfs, context_s
        self.rate_hz, self.next_second = first.rate_hz, first.index
        self.begin_s = float(first.index)
        """Start of the sound that is kept."""
        self.samples = np.zeros(0, np.float32)
        self.spans_s = np.zeros((0, 2))
        """Start and end of the windows that were embedded, (N, 2)."""
        self.embeddings = np.zeros((0, clap.config.embed_dim), np.float32)
        """Their embeddings, (N, A); zeros if a window is silent."""
        self.searched_s = self.change_s = self.covered_s = self.begin_s
        """Until where changes were searched; the last change; until where there are windows."""
        self.index = self.piece = 0

    @property
    def end_s(self) -> float:
        """End of the sound."""
        return float(self.next_second)

    def append(self, second: AudioWindow) -> None:
        """Append a second."""
        self.samples = np.concatenate([self.samples, second.samples])
        self.next_second = second.index + 1

    def advance(self, until_s: float, *, last: bool = False) -> Generator[AudioWindow, None, None]:
        """Search changes up to a time, and yield windows up to there; some later without `last`."""
        self._embed_new(last=last)
        for change_s in self._search(until_s):
            yield from self._cover(change_s, ends=True)
            self.change_s, self.piece = change_s, self.piece + 1
        yield from self._cover(until_s, ends=last)
        self.searched_s = until_s
        self._forget(min(until_s - MARGIN_S, self.covered_s - max(AVERAGED_S, self.context_s)))

    def _embed_new(self, *, last: bool) -> None:
        """Embed the windows that are complete by now."""
        end_s = self._sound_end_s() if last else self.end_s
        new = []
        if not len(self.spans_s):
            new = [(self.begin_s, self.begin_s + length_s) for length_s in EDGE_S]
        start_s = self.spans_s[-1, 0] + HOP_S if len(self.spans_s) else self.begin_s
        count = 1 + math.floor((end_s - start_s - WINDOW_S) / HOP_S + CLOCK_SLACK_S)
        new += [(start_s + k * HOP_S, start_s + k * HOP_S + WINDOW_S) for k in range(count)]
        if last:
            new += [
                (end_s - length_s, end_s) for length_s in EDGE_S if end_s - length_s >= self.begin_s
            ]
        self.embeddings = np.concatenate([self.embeddings, self._embed(new)])
        self.spans_s = np.concatenate([self.spans_s, np.array(new).reshape(-1, 2)])

    def _sound_end_s(self) -> float:
        """Return the end of the sound, without the zeros that fill its last second."""
        filled = np.flatnonzero(self.samples[-self.rate_hz :])
        missing = self.rate_hz - 1 - filled[-1] if len(filled) else 0
        return self.end_s - float(missing) / self.rate_hz

    def _embed(self, spans_s: list[tuple[float, float]]) -> Float32Array:
        """Return embeddings (N, A) of parts of the sound; shorter ones are repeated to a second."""
        windows = [np.resize(self._slice(*span_s), self.rate_hz) for span_s in spans_s]
        below = -np.inf if self.silence_dbfs is None else self.silence_dbfs
        loud = [k for k, window in enumerate(windows) if level_dbfs(window) >= below]
        embeddings = np.zeros((len(windows), self.embeddings.shape[1]), np.float32)
        if loud:
            stacked = torch.from_numpy(np.stack([windows[k] for k in loud]))
            with torch.inference_mode():
                embedded = self.clap(stacked.to(next(self.clap.parameters()).device))
            embeddings[loud] = embedded.float().cpu().numpy()
        return embeddings

    def _search(self, until_s: float) -> list[float]:
        """Return the changes between `searched_s` and a time."""
        edges = find_silences(self.samples, self.rate_hz, self.silence_dbfs)
        edges = [self.begin_s + edge for edge in edges]
        found = find_changes(self.embeddings, self.spans_s)
        found = [t for t in found if all(abs(t - edge) > NEAR_SILENCE_S for edge in edges)]
        if found:
            found = self._refine(found, [self.begin_s, *edges, self.end_s])
        earliest_s = max(self.change_s + SHORTEST_S, self.searched_s - SHORTEST_S)
        changes: list[float] = []
        for change_s in sorted(found + edges):
            if earliest_s <= change_s <= until_s:
                changes.append(change_s)
                earliest_s = change_s + SHORTEST_S
        return changes

    def _refine(self, found: list[float], bounds: list[float]) -> list[float]:
        """Place changes where the spectra change."""
        spectra, hop_s = self._spectra()
        times = np.array(sorted(found + bounds))
        begin_s = self.begin_s
        return [
            begin_s
            + refine_change(
                spectra,
                hop_s,
                t - begin_s,
                before_s=times[times < t].max() - begin_s,
                after_s=times[times > t].min() - begin_s,
            )
            for t in found
        ]

    def _cover(self, until_s: float, *, ends: bool) -> Generator[AudioWindow, None, None]:
        """Yield windows up to a time, at which the piece ends or may go on.

        A piece is covered by whole seconds, and what remains at its end by one or two windows.
        """
        remains_s = 2.0 if ends else 1.0 + max(1.0, self.context_s / 2)
        while until_s - self.covered_s >= remains_s:
            yield self._window(self.covered_s + 1, until_s)
        if ends and until_s > self.covered_s:
            count = max(1, round(until_s - self.covered_s))
            for stop_s in np.linspace(self.covered_s, until_s, count + 1)[1:].tolist():
                yield self._window(stop_s, until_s)

    def _window(self, stop_s: float, piece_stop_s: float) -> AudioWindow:
        """Return the window from `covered_s` to a time, of a piece that is known to another one."""
        span_s = self.covered_s, stop_s
        part_s = self._around(span_s, WINDOW_S, piece_stop_s)
        context_s = self._around(span_s, self.context_s, piece_stop_s)
        together = self.context_s > WINDOW_S
        window = AudioWindow(
            samples=np.resize(self._slice(*part_s), self.rate_hz),
            index=self.index,
            rate_hz=self.rate_hz,
            span_s=span_s,
            piece=self.piece,
            context=self._slice(*context_s) if together else None,
            embedding=None if together else self._average(part_s, piece_stop_s),
        )
        self.covered_s, self.index = stop_s, self.index + 1
        return window

    def _around(
        self, span_s: tuple[float, float], length_s: float, piece_stop_s: float
    ) -> tuple[float, float]:
        """Return start and end of a length around the middle of a span, within the piece."""
        start_s = min((sum(span_s) - length_s) / 2, piece_stop_s - length_s)
        start_s = max(start_s, self.change_s)
        return start_s, min(start_s + length_s, piece_stop_s)

    def _average(self, part_s: tuple[float, float], piece_stop_s: float) -> Float32Array:
        """Return the mean embedding (A,) of the windows of the piece around a part of it."""
        starts_s, stops_s = self.spans_s.T
        near = abs(starts_s + stops_s - sum(part_s)) <= 2 * AVERAGED_S
        within = (starts_s >= self.change_s) & (stops_s <= piece_stop_s)
        full = stops_s - starts_s > WINDOW_S - CLOCK_SLACK_S
        chosen = self.embeddings[near & within & full & self.embeddings.any(axis=1)]
        mean: Float32Array = chosen.mean(axis=0) if len(chosen) else self._embed([part_s])[0]
        return mean

    def _slice(self, start_s: float, stop_s: float) -> Float32Array:
        start, stop = (round((t - self.begin_s) * self.rate_hz) for t in (start_s, stop_s))
        return self.samples[start:stop]

    def _spectra(self) -> tuple[Float32Array, float]:
        """Return log-mel spectra (T, BANDS) in dB of all that is kept, and their distance."""
        config, device = self.clap.config, next(self.clap.parameters()).device
        with torch.inference_mode():
            mel = self.clap.logmel(torch.from_numpy(self.samples)[None].to(device))[0, 0].cpu()
        bands = mel.reshape(len(mel), BANDS, -1).mean(dim=2).numpy()
        return np.maximum(bands, bands.max() - RANGE_DB), config.hop / config.rate_hz

    def _forget(self, before_s: float) -> None:
        """Drop what is before a time and no longer needed."""
        kept = self.spans_s[:, 0] >= before_s
        if kept.all():
            return
        begin_s = float(self.spans_s[kept, 0].min())
        self.embeddings, self.spans_s = self.embeddings[kept], self.spans_s[kept]
        self.samples = self.samples[round((begin_s - self.begin_s) * self.rate_hz) :]
        self.begin_s = begin_s
