"""The adapter returns one vector per encoder block."""

import pytest
import torch

from av2tsam_cli.model.adapter import Adapter
from av2tsam_cli.model.config import PRESETS

from ..tiny import shake


def test_each_block_has_a_vector_of_its_width() -> None:
    adapter = Adapter(feature_dim=5, block_dims=(4, 4, 8), shared=False)
    vectors = adapter(torch.randn(2, 5))
    assert [tuple(vector.shape) for vector in vectors] == [(2, 4), (2, 4), (2, 8)]


def test_a_new_adapter_does_not_change_the_encoder() -> None:
    for shared in (True, False):
        adapter = Adapter(feature_dim=5, block_dims=(4, 4), shared=shared)
        assert not any(vector.any() for vector in adapter(torch.randn(2, 5)))


def test_blocks_get_different_vectors_with_a_shared_last_layer() -> None:
    adapter = Adapter(feature_dim=5, block_dims=(4, 4), shared=True)
    shake(adapter)
    first, second = adapter(torch.randn(2, 5))
    assert not torch.allclose(first, second)


def test_the_initial_weights_are_the_references_at_full_size() -> None:
    torch.manual_seed(0)
    dims = PRESETS["evf-sam2"].sam.block_dims[:3]
    adapter = Adapter(feature_dim=512, block_dims=dims, shared=False)
    for block in adapter.blocks:
        assert block[0].weight.std().item() == pytest.approx(0.02, rel=0.01)
        assert abs(block[0].weight.mean().item()) < 2e-4
        assert not block[0].bias.any()


def test_the_adapters_have_the_published_sizes() -> None:
    for name, millions, shared in (("evf-sam", 9.06, True), ("evf-sam2", 26.13, False)):
        with torch.device("meta"):
            adapter = Adapter(
                feature_dim=512, block_dims=PRESETS[name].sam.block_dims, shared=shared
            )
        assert round(sum(p.numel() for p in adapter.parameters()) / 1e6, 2) == millions
