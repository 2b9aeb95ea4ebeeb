"""Packed layers give the results of linear layers."""

import pytest
import torch
from torch import nn

from av2tsam_cli.inference.loading import is_light
from av2tsam_cli.model.cpu import PackedLinear, can_pack, cpu_capabilities, linear_gelu, pack

pytestmark = pytest.mark.cpu
needs_packing = pytest.mark.skipif(
    not can_pack(cpu_capabilities()),
    reason="needs a CPU and a PyTorch that pack bfloat16 weights (AVX-512 BW, VL and DQ)",
)


@needs_packing
@pytest.mark.parametrize("shape", [(1, 1, 96), (3, 5, 96), (2, 16, 16, 96)])
def test_a_packed_layer_gives_the_result_of_the_linear_layer(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear, tokens = nn.Linear(96, 40).bfloat16(), torch.randn(shape).bfloat16()
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(tokens), linear(tokens))


@needs_packing
def test_packed_layers_accept_a_slice_of_the_tokens() -> None:
    torch.manual_seed(0)
    linear, tokens = nn.Linear(96, 40).bfloat16(), torch.randn(3, 9, 96).bfloat16()[:, :5]
    with torch.inference_mode():
        torch.testing.assert_close(PackedLinear(linear)(tokens), linear(tokens))


def test_a_linear_layer_with_gelu() -> None:
    check_linear_gelu(packed=False)


@needs_packing
def test_a_packed_layer_with_gelu_in_one_pass() -> None:
    check_linear_gelu(packed=True)


def check_linear_gelu(*, packed: bool) -> None:
    torch.manual_seed(0)
    linear, tokens = nn.Linear(96, 40).bfloat16(), torch.randn(2, 7, 96).bfloat16()
    with torch.inference_mode():
        expected = nn.functional.gelu(linear(tokens).float())
        gelu = linear_gelu(PackedLinear(linear) if packed else linear, tokens).float()
    torch.testing.assert_close(gelu, expected, rtol=0.02, atol=0.01)


@needs_packing
def test_only_bfloat16_linear_layers_are_packed() -> None:
    network = nn.Sequential(nn.Linear(4, 4).bfloat16(), nn.Sequential(nn.Linear(4, 4)), nn.GELU())
    pack(network)
    packed, rest, _ = network
    assert isinstance(packed, PackedLinear)
    assert isinstance(rest[0], nn.Linear)


@needs_packing
def test_packed_weights_count_as_parameters() -> None:
    network = nn.Sequential(nn.Linear(7500, 7500, dtype=torch.bfloat16))
    assert not is_light(network)
    pack(network)
    assert not is_light(network)
