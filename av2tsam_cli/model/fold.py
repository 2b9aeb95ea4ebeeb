"""BatchNorms that stand behind a convolution become part of it: one pass less over every map."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights


def fold_batch_norms(network: nn.Module) -> None:
    """Fold in place; from then on the network is for inference only, and saves under other names.

    A BatchNorm is taken to follow a convolution where it does so among the children of a module, as
    it does in every network here.
    """
    for module in network.modules():
        for (_, before), (name, after) in pairwise(list(module.named_children())):
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                _fold(before, after)
                setattr(module, name, nn.Identity())


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm without statistics cannot be folded")
    weight, bias = fuse_conv_bn_weights(
        convolution.weight.float(),
        None if convolution.bias is None else convolution.bias.float(),
        mean.float(),
        variance.float(),
        norm.eps,
        norm.weight.float(),
        norm.bias.float(),
    )
    dtype = convolution.weight.dtype
    convolution.weight = _frozen(weight, dtype)
    convolution.bias = _frozen(bias, dtype)


def _frozen(values: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(values.detach().to(dtype), requires_grad=False)
