"""What depends on the CPU: its capabilities, and linear layers packed for it in bfloat16."""

from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Capabilities = Mapping[str, object]
"""Names of instruction sets, such as `avx512_bf16`, with whether the CPU has them."""

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Any of these multiplies bfloat16 faster than float32; other CPUs emulate it, which is slower."""
PACKING_INSTRUCTIONS = ("avx512_bw", "avx512_vl", "avx512_dq")
"""oneDNN needs all of these to handle bfloat16, unless the CPU has `avx_ne_convert`."""

# The operations that torch.compile uses for linear layers on a CPU. They have no public name.
_OPERATIONS = torch.ops.mkldnn


@cache
def cpu_capabilities() -> Capabilities:
    """Return the instruction sets of this CPU; empty if PyTorch is too old to report them."""
    capabilities: Capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities


def has_fast_bf16(capabilities: Capabilities) -> bool:
    """Return whether a CPU with these capabilities multiplies bfloat16 faster than float32."""
    return any(capabilities.get(name) for name in BF16_INSTRUCTIONS)


def supports_packing(capabilities: Capabilities) -> bool:
    """Return whether oneDNN handles bfloat16 on a CPU with these capabilities.

    The condition is the one in PyTorch's aten/src/ATen/native/mkldnn/Utils.h
    (`mkldnn_bf16_device_check`). ARM CPUs, which report other names, do not pack.
    """
    return bool(
        capabilities.get("avx_ne_convert")
        or all(capabilities.get(name) for name in PACKING_INSTRUCTIONS)
    )


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: the weight is packed once and the bias is fused."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", _OPERATIONS._reorder_linear_weight(linear.weight.detach()))
        self.bias = linear.bias

    def forward(self, tokens: Tensor, *, activation: str = "none") -> Tensor:
        """Map bfloat16 tokens (..., in features) to (..., out features).

        Args:
            tokens: The input.
            activation: `none`, or `gelu` to apply GELU in the same pass.
        """
        result: Tensor = _OPERATIONS._linear_pointwise(
            tokens, self.weight, self.bias, activation, [], "none"
        )
        return result


def linear_gelu(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Apply a linear layer and GELU, in one pass if the layer is packed."""
    if isinstance(layer, PackedLinear):
        result: Tensor = layer(tokens, activation="gelu")
        return result
    return F.gelu(layer(tokens))


def can_pack(capabilities: Capabilities) -> bool:
    """Return whether this build of PyTorch can pack weights on a CPU with these capabilities."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return (
        supports_packing(capabilities)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(_OPERATIONS, name) for name in names)
    )


def pack(module: nn.Module) -> None:
    """Replace every bfloat16 linear layer in a module, in place, by a packed one.

    Packed layers cannot be trained. Call this only if `can_pack` returns True for the CPU.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.weight.dtype == torch.bfloat16:
            setattr(module, name, PackedLinear(child))
        else:
            pack(child)
