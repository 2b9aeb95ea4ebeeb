"""Each benchmark runs on a small job and ends in the JSON line that it promises."""

import json
import math
import runpy
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from av2tsam_cli.model.beit3 import Beit3

from .tiny import TINY, shake

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LastLine = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="comes with a clone only")


@pytest.fixture
def last_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> LastLine:
    """What `python benchmarks/SCRIPT WORDS` says last, run here: importing torch takes seconds."""

    def run(script: str, *words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [script, *words])
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        result: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert {"machine", "cores", "torch", "av2tsam"} <= result.keys()
        return result

    return run


def is_positive(*numbers: float) -> bool:
    return all(math.isfinite(number) and number > 0 for number in numbers)


def test_plain_network_makes_the_same_masks(last_line: LastLine) -> None:
    words = ("--precision", "fp32", "--frames", "5", "--runs", "1", "--parts", "--device", "cpu")
    result = last_line("baseline.py", *words)
    assert result["mask_iou"] >= 0.99
    assert result["mask_iou"] <= result["mask_iou_mean"] <= 1
    assert is_positive(result["ratio"], result["plain_s_per_frame"], result["ours_s_per_frame"])


def test_frames_of_the_network_against_the_peak(last_line: LastLine) -> None:
    words = ("--precision", "fp32", "--batch", "1,2", "--runs", "1", "--device", "cpu")
    result = last_line("frames.py", *words)
    assert is_positive(result["frames_per_s"], result["share_of_peak"], result["peak_tflops_fp32"])
    assert result["batch"] in {1, 2}


def test_pipeline_against_its_halves(last_line: LastLine) -> None:
    words = ("--size", "64x48", "--rate", "5", "--seconds", "2", "--runs", "1", "--device", "cpu")
    result = last_line("pipeline.py", *words)
    assert result["frames"] == 10
    assert is_positive(result["overhead"], result["network_s"], result["codec_s"])
    assert 0 <= result["network_waits"] <= 1


def test_masks_between_keys_against_masks_at_every_frame(last_line: LastLine) -> None:
    words = ("--fps", "5", "--scenes", "1", "--seconds", "1", "--device", "cpu")
    found = last_line("interpolation.py", *words)["fps"]["5"]
    assert found["hold"] < found["linear"] < found["flow"] < 1
    assert found["fast_hold"] < found["fast_linear"] < found["fast_flow"] < 1
    assert is_positive(found["speed"])


def test_masks_of_frames_that_repeat_against_masks_at_every_frame(last_line: LastLine) -> None:
    words = ("--reuse", "1", "--scenes", "1", "--seconds", "1", "--device", "cpu")
    found = last_line("reuse.py", *words)["reuse"]["1"]
    assert found.keys() == {"slides", "tripod", "doubled", "still_camera", "moving"}
    assert all(of["least_iou"] >= 0.99 and is_positive(of["speed"]) for of in found.values())
    assert found["slides"]["skipped"] > 0.5
    assert found["moving"]["skipped"] == 0


def test_parts_against_their_peers(last_line: LastLine) -> None:
    words = ("--small", "--runs", "1", "--parts", "clip,beit3", "--mapped", "--same-malloc")
    parts = last_line("peers.py", *words)["parts"]
    assert parts.keys() == {"clip", "beit3"}
    for part in parts.values():
        assert is_positive(part["ratio"], part["cpu_ratio"], part["mapped_ratio"])
        assert part["weights"]["ours"] == part["weights"]["theirs"]


def test_plain_beit3_computes_what_ours_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    plain = import_module("plain_beit3").PlainBeit3(TINY.beit3).eval()
    shake(plain)
    ours = Beit3(TINY.beit3).eval()
    ours.load_state_dict(plain.state_dict())
    images, text = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images, text), plain(images, text), rtol=1e-4, atol=1e-5)


def test_wait_at_the_start(last_line: LastLine) -> None:
    result = last_line("startup.py", "--runs", "1", "--first-frames", "1")
    assert is_positive(result["help_over_python"], result["first_frame_s"])
    assert result["torch_imported"] is False


def test_memory_against_length(last_line: LastLine) -> None:
    result = last_line("memory.py", "--minutes", "0.02,0.04", "--device", "cpu")
    assert math.isfinite(result["rss_growth"])
    assert is_positive(*result["peak_rss_mib"])
