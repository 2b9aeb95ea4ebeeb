"""Find the sources of a vocabulary that are heard in each second of audio."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.embeddings.clap import ClapEmbedder
from av2tsam_cli.inference.loading import LoadedModel
from av2tsam_cli.inference.timing import cut_at_changes
from av2tsam_cli.segment_options import SILENCE_DBFS, Timing
from av2tsam_cli.values import AudioWindow, Float32Array, HeardSource
from av2tsam_cli.words.references import reference_sounds
from av2tsam_cli.words.scores import NamedPhrases, NameScores
from av2tsam_cli.words.vocabulary import Vocabulary, choose_vocabulary, load_vocabulary

CONTEXT_S = 5
"""Seconds to embed together with a CLAP, which was trained on clips of 7 to 10 s; small models with
a table of names were trained on single seconds."""
HEARD_TOGETHER = 17
"""Seconds of audio to score at once."""
START_LOGIT, STAY_LOGIT = -1.0, -2.0
"""A source is heard from a second on in which it reaches the first logit, and as long as it reaches
the second one."""
MAX_SOURCES = 4
"""Maximum number of sources in one second; the most likely ones are used."""


@dataclass(frozen=True)
class _Context:
    """A second of audio with its surroundings."""

    window: AudioWindow
    """The second."""
    samples: Float32Array = field(repr=False)
    """The samples to embed, (n,)."""


class Hearing:
    """Listens for the sources of a vocabulary."""

    def __init__(
        self,
        clap: ClapEmbedder,
        vocabulary: Vocabulary,
        scores: Callable[[Tensor], Tensor],
        *,
        context_s: int,
        silence_dbfs: float | None,
    ) -> None:
        """Prepare to listen.

        Args:
            clap: The audio encoder.
            vocabulary: The sources.
            scores: Returns logits (N, K) of their names for embeddings of `clap`, (N, E).
            context_s: Number of seconds to embed together, centred on each second; odd.
            silence_dbfs: Level below which seconds count as silence; None to switch this off.
        """
        self.clap, self.vocabulary, self.scores = clap, vocabulary, scores
        self.context_s, self.silence_dbfs = context_s, silence_dbfs

    def hear(
        self, seconds: Iterable[AudioWindow], timing: Timing = "paper"
    ) -> Generator[AudioWindow, None, None]:
        """Yield windows with the sources that are heard in them, looking a few seconds ahead.

        Args:
            seconds: The sound, one window per second.
            timing: `fine` to cut the sound where its sources change, `paper` to keep seconds.
        """
        windows = seconds
        if timing == "fine":
            windows = cut_at_changes(
                seconds, self.clap, silence_dbfs=self.silence_dbfs, context_s=self.context_s
            )
        heard = _Active([source.name for source in self.vocabulary.sources])
        for batch in _in_batches(_with_context(windows, self.context_s), HEARD_TOGETHER):
            silent = [each.window.is_silent(self.silence_dbfs) for each in batch]
            loud = [each for each, quiet in zip(batch, silent, strict=True) if not quiet]
            logits = iter(self._scores(loud) if loud else ())
            for each, quiet in zip(batch, silent, strict=True):
                row = None if quiet else next(logits)
                yield replace(each.window, sources=heard.update(each.window.index, row))

    def _scores(self, contexts: Sequence[_Context]) -> Tensor:
        """Return the logits (N, K) of N windows; with a context, every other one is interpolated.

        The contexts of neighbours are nearly the same, and CLAP takes most of the time.
        """
        chosen = _windows_to_embed([each.window for each in contexts], self.context_s)
        embedded = self._embed([contexts[n] for n in chosen])
        logits = torch.empty(len(contexts), len(self.vocabulary.sources))
        logits[chosen] = self.scores(embedded)
        for n in set(range(len(contexts))) - set(chosen):
            logits[n] = (logits[n - 1] + logits[n + 1]) / 2
        return logits

    def _embed(self, contexts: Sequence[_Context]) -> Tensor:
        """Return the embeddings (N, E) of N windows."""
        given = [each.window.embedding for each in contexts if each.window.embedding is not None]
        if len(given) == len(contexts):
            return torch.from_numpy(np.stack(given))
        return embed_sounds(self.clap, [each.samples for each in contexts])


def load_hearing(
    model: LoadedModel,
    vocabulary: Path | None = None,
    names: Sequence[str] = (),
    *,
    silence_dbfs: float | None = SILENCE_DBFS,
) -> Hearing:
    """Prepare a model to listen for the sources of a vocabulary.

    Args:
        model: A model whose CLAP is loaded.
        vocabulary: A vocabulary file; None for the built-in one.
        names: Use only the sources with these names or synonyms; empty for all.
        silence_dbfs: See `Hearing`.

    Raises:
        UsageError: A name is unknown, or the model does not support a phrase of the vocabulary.
        MediaError: The vocabulary file is not valid.
        WeightsError: CLAP has no text encoder, or a tokenizer is missing.
    """
    clap, embedder = model.network.clap, model.phrase_embedder("clap")
    chosen = choose_vocabulary(vocabulary, names, fixed=embedder.names)
    phrases = NamedPhrases(
        names=tuple(source.sounds for source in chosen.sources),
        background=tuple(phrase for each in chosen.backgrounds for phrase in each.sounds),
        others=tuple(phrase for each in load_vocabulary().sources for phrase in each.sounds),
    )
    scores = NameScores(
        embedder, phrases, lambda: embed_sounds(clap, reference_sounds(clap.config.rate_hz))
    )
    return Hearing(
        clap,
        chosen,
        scores,
        context_s=1 if embedder.names else CONTEXT_S,
        silence_dbfs=silence_dbfs,
    )


def embed_sounds(clap: ClapEmbedder, sounds: Sequence[Float32Array]) -> Tensor:
    """Embed mono samples of any lengths, (n,) each: (N, E)."""
    device = next(clap.parameters()).device
    with torch.inference_mode():
        groups = [np.stack([*group]) for _, group in groupby(sounds, key=len)]
        return torch.cat([clap(torch.from_numpy(group).to(device)) for group in groups])


class _Active:
    """The sources that are currently heard; each is decided separately."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._numbers: dict[int, int] = {}
        self._active: set[int] = set()
        self._last: int | None = None

    def update(self, index: int, logits: Tensor | None) -> tuple[HeardSource, ...]:
        """Return the sources heard in second `index`, given logits (K,), or None for silence."""
        before = self._active if self._last == index - 1 else set()
        self._last, self._active = index, set()
        if logits is None:
            return ()
        values = logits.tolist()
        found = [
            k for k, v in enumerate(values) if v >= (STAY_LOGIT if k in before else START_LOGIT)
        ]
        found = sorted(found, key=lambda k: -values[k])[:MAX_SOURCES]
        self._active = set(found)
        for k in found:
            self._numbers.setdefault(k, len(self._numbers) + 1)
        chances = torch.sigmoid(logits).tolist()
        return tuple(HeardSource(self._names[k], chances[k], self._numbers[k]) for k in found)


def _with_context(windows: Iterable[AudioWindow], seconds: int) -> Iterator[_Context]:
    """Add to each window its context, or up to (seconds - 1) / 2 windows before and after it."""
    reach = (seconds - 1) // 2
    near: deque[AudioWindow] = deque()
    waiting: deque[AudioWindow] = deque()
    for window in windows:
        if window.context is not None:
            yield _Context(window, window.context)
            continue
        if near and window.index != near[-1].index + 1:  # a gap
            yield from (_joined(each, near, reach) for each in waiting)
            near.clear()
            waiting.clear()
        near.append(window)
        waiting.append(window)
        if len(waiting) > reach:
            yield _joined(waiting.popleft(), near, reach)
            while near[0].index < window.index - 2 * reach:
                near.popleft()
    yield from (_joined(each, near, reach) for each in waiting)


def _joined(window: AudioWindow, near: Iterable[AudioWindow], reach: int) -> _Context:
    parts = [each.samples for each in near if abs(each.index - window.index) <= reach]
    return _Context(window, np.concatenate(parts) if len(parts) > 1 else window.samples)


def _windows_to_embed(windows: Sequence[AudioWindow], context_s: int) -> list[int]:
    """Return the indices of the windows to embed.

    These are all windows, or, with a context, every other window of a run, with its first and last
    one. A run is a part of one piece without gaps.
    """

    def joined(n: int) -> bool:
        return (
            windows[n].index == windows[n - 1].index + 1
            and windows[n].piece == windows[n - 1].piece
        )

    chosen: list[int] = []
    for n in range(len(windows)):
        starts = n == 0 or not joined(n)
        ends = n + 1 == len(windows) or not joined(n + 1)
        if context_s == 1 or starts or ends or chosen[-1] != n - 1:
            chosen.append(n)
    return chosen


def _in_batches(items: Iterable[_Context], size: int) -> Iterator[list[_Context]]:
    batch: list[_Context] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
