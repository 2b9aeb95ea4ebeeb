"""Embeddings of a fixed list of names, which a small model has instead of a text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.errors import UsageError


class NameTable(nn.Module):
    """One learned embedding per name, in the space of an audio or image encoder.

    Trained with the pairwise sigmoid loss of Zhai et al., "Sigmoid Loss for Language Image
    Pre-Training", 2023, because several names can apply at once. K = names, E = width.
    """

    def __init__(self, names: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(nn.init.normal_(torch.empty(names, width)))
        self.scale = nn.Parameter(torch.full((), 10.0))
        self.bias = nn.Parameter(torch.full((), -5.0))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logit that each name applies, float32, (N, K), for embeddings (N, E)."""
        unit = F.normalize(embeddings.float(), dim=1)
        similarity = unit @ F.normalize(self.table.float(), dim=1).T
        return self.scale.float() * similarity + self.bias.float()


@dataclass(frozen=True)
class NameEmbedder:
    """The phrase embedder of a small model: looks names up in its table (see `PhraseEmbedder`)."""

    names: tuple[str, ...]
    """The names, in the order of the table."""
    table: NameTable = field(repr=False)
    """Their embeddings."""

    @property
    def scale(self) -> float:
        """See `PhraseEmbedder`."""
        return float(self.table.scale.detach())

    @property
    def bias(self) -> float:
        """See `PhraseEmbedder`."""
        return float(self.table.bias.detach())

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """See `PhraseEmbedder`; case does not matter."""
        known = {name.lower(): row for row, name in enumerate(self.names)}
        unknown = [phrase for phrase in phrases if phrase.strip().lower() not in known]
        if unknown:
            raise UsageError(
                f"{unknown[0]!r}: not one of this model's names; use one of these: "
                f"{', '.join(self.names)}"
            )
        rows = [known[phrase.strip().lower()] for phrase in phrases]
        with torch.inference_mode():
            return F.normalize(self.table.table[rows].float(), dim=1)
