"""The embeddings of names that a small model has instead of a text encoder."""

import dataclasses
from pathlib import Path

import torch

from av2tsam_cli.embeddings.names import NameTable
from av2tsam_cli.hub.checkpoint import load_network, save_network
from av2tsam_cli.model.av2tsam import build

from ..tiny import TINY


def test_the_logit_is_a_scaled_cosine() -> None:
    names = NameTable(3, 4)
    with torch.no_grad():
        names.table.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [-3, 0, 0, 0]]))
        logits = names(torch.tensor([[5.0, 0, 0, 0], [1, 1, 0, 0]]))
    half = 0.5**0.5
    expected = torch.tensor([[1.0, 0, -1], [half, half, -half]]) * 10 - 5
    torch.testing.assert_close(logits, expected)


def test_names_are_part_of_the_checkpoint(tmp_path: Path) -> None:
    clap = dataclasses.replace(TINY.clap, names=("dog", "bell"))
    network = build(dataclasses.replace(TINY, clap=clap))
    save_network(network, tmp_path / "named.safetensors")
    loaded = load_network(tmp_path / "named.safetensors")
    assert loaded.config.clap.names == ("dog", "bell")
    assert loaded.clip.names is None
    embeddings = torch.randn(5, TINY.clap.embed_dim)
    assert torch.equal(loaded.clap.names(embeddings), network.clap.names(embeddings))
