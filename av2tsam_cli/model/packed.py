"""Linear layers in bfloat16 whose weights lie as the CPU multiplies them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What PyTorch's own compiler calls for linear layers on a CPU; there is no public name for it.
_OPERATIONS = torch.ops.mkldnn


class PackedLinear(nn.Module):
    """`nn.Linear` for inference: the weight is packed once, not at every call, the bias fused."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", _OPERATIONS._reorder_linear_weight(linear.weight.detach()))
        self.bias = linear.bias

    def forward(self, tokens: Tensor, *, activation: str = "none") -> Tensor:
        """(..., width in), bfloat16, to (..., width out); `activation` may be `gelu`."""
        result: Tensor = _OPERATIONS._linear_pointwise(
            tokens, self.weight, self.bias, activation, [], "none"
        )
        return result


def linear_gelu(layer: nn.Module, tokens: Tensor) -> Tensor:
    """A linear layer and GELU, in one go where the layer is packed."""
    if isinstance(layer, PackedLinear):
        result: Tensor = layer(tokens, activation="gelu")
        return result
    return F.gelu(layer(tokens))


def can_pack() -> bool:
    """Whether this build of PyTorch has what it takes."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(_OPERATIONS, name) for name in names
    )


def pack(module: nn.Module) -> None:
    """Replace every bfloat16 linear layer inside a module; it can only be run from then on."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear) and child.weight.dtype == torch.bfloat16:
            setattr(module, name, PackedLinear(child))
        else:
            pack(child)
