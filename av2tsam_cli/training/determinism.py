"""Deterministic algorithms in PyTorch, while a block runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Run the block with deterministic algorithms only; the settings are restored afterwards.

    cuBLAS is deterministic only with a workspace of fixed size, which it reads from the environment
    when it is first used (https://docs.nvidia.com/cuda/cublas/#results-reproducibility). A size
    that is already set is kept.
    """
    cudnn = torch.backends.cudnn
    was_enabled = torch.are_deterministic_algorithms_enabled()
    was_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    before = cudnn.deterministic, cudnn.benchmark
    workspace = os.environ.get(_CUBLAS)
    os.environ.setdefault(_CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_enabled, warn_only=was_warning)
        cudnn.deterministic, cudnn.benchmark = before
        if workspace is None:
            del os.environ[_CUBLAS]
