"""`--precision bf16` works on every CPU, and says so where it is the slow choice."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.model.cpu import cpu_capabilities, has_fast_bf16

pytestmark = pytest.mark.cpu


def test_bf16_segments_a_video_on_this_cpu(
    make_clip: Callable[..., Path],
    tone: Callable[..., npt.NDArray[np.float32]],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = make_clip(seconds=0.4, sounds=[{"samples": tone(0.4)}])
    command: list[Any] = ["segment", clip, "--out", tmp_path, "--format", "masks"]
    options = ["--model", tiny_model, "--device", "cpu", "--precision", "bf16"]
    assert main([str(word) for word in command + options]) == 0
    assert len(list((tmp_path / "clip").glob("*.png"))) == 10
    slow = not has_fast_bf16(cpu_capabilities())
    assert ("times slower than fp32 on this CPU" in capsys.readouterr().err) == slow


@pytest.fixture
def cpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let PyTorch report a CPU without instructions for bf16."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    cpu_capabilities.cache_clear()
    yield
    cpu_capabilities.cache_clear()


@pytest.mark.usefixtures("cpu_without_bf16")
@pytest.mark.parametrize("command", ["segment", "evaluate", "train"])
def test_bf16_on_a_cpu_without_instructions_for_it_is_one_warning(
    command: str,
    generated: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = ["--data", generated, "--cache", tmp_path / "cache"]
    words: dict[str, list[Any]] = {
        "segment": [min(generated.rglob("s4_*.mp4")), "--out", tmp_path / "overlay.mp4"],
        "evaluate": [*data, "--limit", "1"],
        "train": [*data, "--out", tmp_path / "run", "--max-steps", "1", "--epochs", "1"],
    }
    options = ["--model", tiny_model, "--device", "cpu", "--precision", "bf16"]
    assert main([str(word) for word in [command, *words[command], *options]]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "slower" in line]
    assert warnings == [
        "av2tsam: --precision bf16: about five times slower than fp32 on this CPU, which has no "
        "instructions for it; use auto or fp32"
    ]
