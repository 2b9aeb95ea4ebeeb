"""Blocks whose activations are computed anew in the backward pass, for less memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def run(block: Callable[..., Tensor], *args: Any, anew: bool) -> Tensor:
    """Run a block; with `anew`, keep only what goes in for the backward pass.

    A frozen block needs this too where a gradient has to pass through it. Nothing in our blocks is
    random, so no state of a random generator is kept.
    """
    if not anew or not torch.is_grad_enabled():
        return block(*args)
    kept: Tensor = checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)
    return kept
