"""The projector: CLIP and CLAP embeddings to one feature, and the feature to text tokens."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.config import ProjectorKind


@dataclass(frozen=True)
class Projection:
    """The projector's output for N pairs of a frame and its window."""

    feature: Tensor
    """(N, F): the product of the projected embeddings, or one of them alone."""
    tokens: Tensor
    """(N, tokens, D): take the place of word embeddings in BEiT-3."""


class Projector(nn.Module):
    """f_CLIP * f_CLAP, then text tokens. N = pairs, F = feature, D = BEiT-3's width."""

    def __init__(
        self,
        *,
        kind: ProjectorKind,
        clip_dim: int,
        clap_dim: int,
        feature_dim: int,
        text_dim: int,
        tokens: int = 3,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.tokens = tokens
        self.audio_proj = nn.Linear(clap_dim, feature_dim)
        self.vision_proj = nn.Linear(clip_dim, feature_dim)
        self.to_text_space = nn.Sequential(
            nn.Linear(feature_dim, feature_dim),
            nn.ReLU(),
            nn.Linear(feature_dim, tokens * text_dim),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise like the reference: Kaiming-normal weights and zero biases.

        PyTorch's default is 2.4 times smaller, and its biases then drown the embeddings: the prompt
        would hardly depend on the sound at the start of training.
        """
        for layer in (self.audio_proj, self.vision_proj, *self.to_text_space):
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, clip_embeddings: Tensor, clap_embeddings: Tensor) -> Projection:
        """Project embeddings (N, clip_dim) and (N, clap_dim), which need not be normalised."""
        feature = self._feature(clip_embeddings, clap_embeddings)
        tokens = self.to_text_space(feature).unflatten(-1, (self.tokens, -1))
        return Projection(feature, tokens)

    def _feature(self, clip_embeddings: Tensor, clap_embeddings: Tensor) -> Tensor:
        dtype = self.audio_proj.weight.dtype
        factors: list[Tensor] = []
        if self.kind != "clip":
            factors.append(self.audio_proj(_unit(clap_embeddings).to(dtype)))
        if self.kind != "clap":
            factors.append(self.vision_proj(_unit(clip_embeddings).to(dtype)))
        return factors[0] * factors[1] if len(factors) == 2 else factors[0]


def _unit(embeddings: Tensor) -> Tensor:
    """Normalise along the last axis, in float32."""
    return F.normalize(embeddings.float(), dim=-1)
