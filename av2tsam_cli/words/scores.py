"""Score how well names fit sounds or images, on one scale for all models.

Letters: N embeddings, K names, P phrases, E width of an embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.embeddings.text import PhraseEmbedder

MIN_Z = 3.0
"""Standard deviations above an average phrase from which a name is more likely right than wrong."""
LOGITS_PER_Z = 2.0
"""Logits per standard deviation."""


@dataclass(frozen=True)
class NamedPhrases:
    """The phrases that stand for names, and phrases to compare them with."""

    names: tuple[tuple[str, ...], ...]
    """One or more phrases for each of the K names."""
    background: tuple[str, ...] = ()
    """Phrases, such as "rain falling", that must fit less well than a name."""
    others: tuple[str, ...] = ()
    """Other phrases, to measure how well an average phrase fits; duplicates do not matter."""


class NameScores:
    """Scores names for the embeddings of sounds or images.

    The logits of a model with a table of names were trained to be independent, and are used
    unchanged. The cosines of CLAP and CLIP are not on an absolute scale: 0.3 is high for one phrase
    and low for another. So they are standardised: each phrase's mean over `references` is
    subtracted, then the mean over all phrases, and the result is divided by the standard deviation
    over phrases. A name has the score of its best phrase, and must fit better than the background.
    """

    def __init__(
        self, embedder: PhraseEmbedder, phrases: NamedPhrases, references: Callable[[], Tensor]
    ) -> None:
        """Embed the phrases.

        Args:
            embedder: Embeds phrases in the space of the embeddings.
            phrases: The phrases.
            references: Returns embeddings (R, E) of inputs that no name fits; only called if
                needed.

        Raises:
            UsageError: A phrase cannot be embedded.
        """
        self._independent = embedder.bias != 0
        self._scale, self._bias = embedder.scale, embedder.bias
        self._count = len(phrases.names)
        owned = [phrase for each in phrases.names for phrase in each]
        self._owner = torch.tensor([k for k, each in enumerate(phrases.names) for _ in each])
        compared = () if self._independent else (*phrases.background, *phrases.others)
        compared = tuple(phrase for phrase in dict.fromkeys(compared) if phrase not in owned)
        self._background = torch.tensor(
            [n for n, phrase in enumerate(compared, len(owned)) if phrase in phrases.background],
            dtype=torch.int64,
        )
        self._table = embedder([*owned, *compared]).float().cpu()
        self._usual = torch.zeros(len(self._table))
        if not self._independent:
            self._usual = self._cosines(references()).mean(dim=0)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the logits that names fit, float32, (N, K), on the CPU.

        Args:
            embeddings: (N, E); they need not be normalised.
        """
        cosines = self._cosines(embeddings)
        if self._independent:
            return self._best(self._scale * cosines + self._bias)
        relative = cosines - self._usual
        z = (relative - relative.mean(dim=1, keepdim=True)) / relative.std(dim=1, keepdim=True)
        names, background = self._best(z), z[:, self._background]
        excess = names - MIN_Z
        if background.shape[1]:
            excess = torch.minimum(excess, names - background.amax(dim=1, keepdim=True))
        return LOGITS_PER_Z * excess

    def _cosines(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings.detach().float().cpu(), dim=1) @ self._table.T

    def _best(self, scores: Tensor) -> Tensor:
        """Return the score of each name's best phrase: (N, P) to (N, K)."""
        best = scores.new_full((len(scores), self._count), -torch.inf)
        owner = self._owner.expand(len(scores), -1)
        return best.scatter_reduce(1, owner, scores[:, : len(self._owner)], "amax")
