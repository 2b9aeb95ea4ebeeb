"""CLIP's text encoder and tokenizer, both from open_clip."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from av2tsam_cli.embeddings.borrowed import borrow
from av2tsam_cli.embeddings.clip import ClipConfig, activation
from av2tsam_cli.embeddings.text import MAX_TOKENS


class ClipText(nn.Module):
    """CLIP's text encoder. N = phrases, L = tokens, E = `embed_dim`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        if config.text is None:
            raise ValueError("this CLIP has no text encoder")
        self.encoder = borrow("open_clip.transformer").TextTransformer(
            context_length=config.text.positions,
            vocab_size=config.text.vocabulary_size,
            width=config.text.dim,
            heads=config.text.heads,
            layers=config.text.layers,
            output_dim=config.embed_dim,
            act_layer=activation(config),
        )
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor) -> Tensor:
        """Embed token ids (N, L), which end with the highest id, as (N, E), not normalised."""
        embeddings: Tensor = self.encoder(ids)
        return embeddings


class ClipTokenizer:
    """CLIP's byte-level BPE, whose vocabulary comes with open_clip."""

    def __init__(self) -> None:
        self._model: Any = borrow("open_clip.tokenizer").SimpleTokenizer(context_length=MAX_TOKENS)

    def __call__(self, phrases: Sequence[str]) -> Tensor:
        """See `text.PhraseTokenizer`; a cut phrase still ends with the end mark."""
        ids: Tensor = self._model(list(phrases))
        return ids
