"""The feature and the text tokens."""

import pytest
import torch

from av2tsam_cli.model.config import ProjectorKind
from av2tsam_cli.model.projector import Projector


def projector(kind: ProjectorKind) -> Projector:
    torch.manual_seed(0)
    return Projector(kind=kind, clip_dim=6, clap_dim=8, feature_dim=5, text_dim=4, tokens=3).eval()


def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 6, generator=generator), torch.randn(2, 8, generator=generator)


def test_the_feature_is_the_product_of_the_projections() -> None:
    clip, clap = embeddings()
    both = projector("mul")
    heard = both.audio_proj(clap / clap.norm(dim=-1, keepdim=True))
    seen = both.vision_proj(clip / clip.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(both(clip, clap).feature, heard * seen)
    torch.testing.assert_close(projector("clap")(clip, clap).feature, heard)
    torch.testing.assert_close(projector("clip")(clip, clap).feature, seen)


@pytest.mark.parametrize("kind", ["mul", "clap", "clip"])
def test_embeddings_are_normalised(kind: ProjectorKind) -> None:
    clip, clap = embeddings()
    network = projector(kind)
    torch.testing.assert_close(network(clip * 9, clap * 0.1).tokens, network(clip, clap).tokens)


def test_the_output_is_split_into_three_tokens() -> None:
    clip, clap = embeddings()
    network = projector("mul")
    projection = network(clip, clap)
    assert projection.tokens.shape == (2, 3, 4)
    flat = network.to_text_space(projection.feature)
    assert torch.equal(projection.tokens[:, 1], flat[:, 4:8])


def test_the_clip_projector_ignores_audio() -> None:
    clip, clap = embeddings()
    network = projector("clip")
    assert torch.equal(network(clip, clap).tokens, network(clip, -clap).tokens)
