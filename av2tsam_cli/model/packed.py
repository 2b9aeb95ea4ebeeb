"""Linear layers in bfloat16 whose weights are packed in the order in which the CPU reads them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.model.cpu import Capabilities, supports_packing

# The operations that torch.compile uses for linear layers on a CPU. They have no public name.
_OPERATIONS = torch.ops.mkldnn


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
