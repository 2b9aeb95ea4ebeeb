"""`segment --precision bf16` works on every CPU, and says so where it is the slow choice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

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
    assert ("slower than fp32 on this CPU" in capsys.readouterr().err) == slow
