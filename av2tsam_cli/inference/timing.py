"""Cut the sound of a video into pieces where its sources change.

In the paper, every frame gets the whole second of sound at its time. If the sources change within
that second, it contains the sources from before and after the change. Here, the sound is first cut
at the changes, and no window crosses a change.
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
"""Seconds of new sound in which to search for changes at once."""
MARGIN_S = 3.0
"""Seconds before and after these that are included in the search."""
NEAR_SILENCE_S = 0.5
"""Changes closer than this to the edge of a silence are replaced by the edge."""
EDGE_S = (0.4, 0.6, 0.8)
"""Lengths of additional windows at the start and end of the sound, where fewer windows overlap."""
AVERAGED_S = 2.0
"""Maximum distance of windows in a piece whose embeddings are averaged."""
BANDS = 32
"""Bands of the spectra to compare, which are averages of neighbouring mel bands."""


def cut_at_changes(
    seconds: Iterable[AudioWindow],
    clap: ClapEmbedder,
    *,
    silence_dbfs: float | None,
    context_s: float = WINDOW_S,
) -> Generator[AudioWindow, None, None]:
    """Yield windows in which the sound sources do not change, looking up to 11 seconds ahead.

    A piece of sound between two changes is divided into windows of one second; a shorter piece is
    repeated until it fills a second. The windows have embeddings, or a context to embed.

    Args:
        seconds: The sound, one window per second.
        clap: The audio encoder.
        silence_dbfs: Level below which sound counts as silence; None to switch this off.
        context_s: Seconds of the piece around each window to embed with it. If there is more than
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
        """Start of the sound in memory."""
        self.samples = np.zeros(0, np.float32)
        self.spans_s = np.zeros((0, 2))
        """Start and end of the windows that were embedded, (N, 2)."""
        self.embeddings = np.zeros((0, clap.config.embed_dim), np.float32)
        """Their embeddings, (N, A); zeros if a window is silent."""
        self.searched_s = self.change_s = self.covered_s = self.begin_s
        """End of the search for changes; time of the last change; end of the last window."""
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
        """Search for changes up to a time, and yield windows; all up to this time if `last`."""
        self._embed_new(last=last)
        for change_s in self._search(until_s):
            yield from self._cover(change_s, ends=True)
            self.change_s, self.piece = change_s, self.piece + 1
        yield from self._cover(until_s, ends=last)
        self.searched_s = until_s
        self._forget(min(until_s - MARGIN_S, self.covered_s - max(AVERAGED_S, self.context_s)))

    def _embed_new(self, *, last: bool) -> None:
        """Embed the windows that are complete now."""
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
        """Return embeddings (N, A) of parts of the sound; short parts are repeated to a second."""
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
        """Move changes to where the spectra change."""
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
        """Yield windows up to a time, at which the piece ends or may continue.

        A piece is divided into whole seconds, and the rest at its end into one or two windows.
        """
        rest_s = 2.0 if ends else 1.0 + max(1.0, self.context_s / 2)
        while until_s - self.covered_s >= rest_s:
            yield self._window(self.covered_s + 1, until_s)
        if ends and until_s > self.covered_s:
            count = max(1, round(until_s - self.covered_s))
            for stop_s in np.linspace(self.covered_s, until_s, count + 1)[1:].tolist():
                yield self._window(stop_s, until_s)

    def _window(self, stop_s: float, piece_stop_s: float) -> AudioWindow:
        """Return the window from `covered_s` to `stop_s`; its piece is known to `piece_stop_s`."""
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
        """Return the part of the piece with a length around the middle of a span."""
        start_s = min((sum(span_s) - length_s) / 2, piece_stop_s - length_s)
        start_s = max(start_s, self.change_s)
        return start_s, min(start_s + length_s, piece_stop_s)

    def _average(self, part_s: tuple[float, float], piece_stop_s: float) -> Float32Array:
        """Return the mean embedding (A,) of the piece's windows around a part of it."""
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
        """Return log-mel spectra (T, BANDS) in dB of the sound in memory, and their distance."""
        config, device = self.clap.config, next(self.clap.parameters()).device
        with torch.inference_mode():
            mel = self.clap.logmel(torch.from_numpy(self.samples)[None].to(device))[0, 0].cpu()
        bands = mel.reshape(len(mel), BANDS, -1).mean(dim=2).numpy()
        return np.maximum(bands, bands.max() - RANGE_DB), config.hop / config.rate_hz

    def _forget(self, before_s: float) -> None:
        """Remove sound and embeddings before a time, which are no longer needed."""
        needed = self.spans_s[:, 0] >= before_s
        if needed.all():
            return
        begin_s = float(self.spans_s[needed, 0].min())
        self.embeddings, self.spans_s = self.embeddings[needed], self.spans_s[needed]
        self.samples = self.samples[round((begin_s - self.begin_s) * self.rate_hz) :]
        self.begin_s = begin_s
