"""Deterministic algorithms: switched on for a block, and restored."""

import os

import pytest
import torch

from av2tsam_cli.training.determinism import deterministic_algorithms

cudnn = torch.backends.cudnn


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_settings_are_restored(workspace: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    if workspace is not None:
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", workspace)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    with deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled()
        assert cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == (workspace or ":4096:8")
    after = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    assert after == before
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == workspace
