"""What the CPU can do, as PyTorch reports it. Everything that depends on it is decided here."""

from collections.abc import Mapping
from functools import cache

import torch

Capabilities = Mapping[str, object]
"""Names of instruction sets, such as `avx512_bf16`, with whether the CPU has them."""

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Any of these multiplies bfloat16 faster than float32; other CPUs emulate it, which is slower."""
PACKING_INSTRUCTIONS = ("avx512_bw", "avx512_vl", "avx512_dq")
"""oneDNN needs all of these to handle bfloat16, unless the CPU has `avx_ne_convert`."""


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
