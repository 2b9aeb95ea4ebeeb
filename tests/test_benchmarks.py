"""Each benchmark runs on a small input and ends with its documented JSON line."""

import json
import math
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from av2tsam_cli.model.beit3 import Beit3
from av2tsam_cli.model.config import PRESETS

from .tiny import TINY, TINY_SAM2, shake

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LastLine = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="only in a clone of the repository")


@pytest.fixture
def last_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> LastLine:
    """Run a benchmark in this process, to save importing torch, and return its last line."""

    def run(script: str, *arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        result: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert {"machine", "cores", "torch", "av2tsam"} <= result.keys()
        return result

    return run


def is_positive(*numbers: float) -> bool:
    return all(math.isfinite(number) and number > 0 for number in numbers)


def test_plain_network_produces_the_same_masks(last_line: LastLine) -> None:
    arguments = (
        "--precision",
        "fp32",
        "--frames",
        "5",
        "--runs",
        "1",
        "--parts",
        "--device",
        "cpu",
    )
    result = last_line("baseline.py", *arguments)
    assert result["mask_iou"] >= 0.99
    assert result["mask_iou"] <= result["mask_iou_mean"] <= 1
    assert is_positive(result["ratio"], result["plain_s_per_frame"], result["ours_s_per_frame"])


def test_frames_per_second_and_share_of_the_peak(last_line: LastLine) -> None:
    arguments = ("--precision", "fp32", "--batch", "1,2", "--runs", "1", "--device", "cpu")
    result = last_line("frames.py", *arguments)
    assert is_positive(result["frames_per_s"], result["share_of_peak"], result["peak_tflops_fp32"])
    assert result["batch"] in {1, 2}


def test_pipeline_overhead(last_line: LastLine) -> None:
    arguments = (
        "--size",
        "64x48",
        "--rate",
        "5",
        "--seconds",
        "2",
        "--runs",
        "1",
        "--device",
        "cpu",
    )
    result = last_line("pipeline.py", *arguments)
    assert result["frames"] == 10
    assert is_positive(result["overhead"], result["network_s"], result["codec_s"])
    assert 0 <= result["network_waits"] <= 1


def test_masks_that_are_not_computed_agree_with_the_network(last_line: LastLine) -> None:
    arguments = ("--scenes", "1", "--seconds", "0.8", "--kinds", "still", "--device", "cpu")
    found = last_line("shortcuts.py", *arguments)["shortcuts"]
    assert found.keys() == {"still, sound", "still, text"}
    assert found["still, text"]["fps auto"]["computed"] == 0.05
    assert found["still, text"]["fps 5"]["computed"] == 0.2
    for of in found.values():
        assert of["all"]["computed"] == of["all"]["iou"] == 1
        assert of["fps auto"]["iou"] > 0.9
        assert of["fps auto"]["computed"] <= 0.1  # one, or two if a change of the sound is found
        assert of["fps 5"]["computed"] in {0.2, 0.25}


def test_masks_and_changes_of_the_sound(last_line: LastLine) -> None:
    arguments = ("--samples", "relay", "--cuts", "1.2", "--scenes", "1", "--seconds", "0.4")
    options = ("--set", "silence_dbfs=-50", "--processes", "1", "--device", "cpu")
    result = last_line("timing.py", *arguments, *options)
    assert result["options"] == {"hear": "trained", "silence_dbfs": -50}
    relay = result["samples"]["relay"]  # the phone stops after 0.17 s, when the frog starts
    assert relay["onset"]["changes"] == relay["offset"]["changes"] == 1
    assert relay["least_miou"] == relay["miou"]["1.2"] > 0.3
    scenes = result["scenes"]
    assert scenes.keys() == {"off_grid", "on_grid"}
    for scores in (relay, *scenes.values()):
        assert scores["computed"] == 1
        assert scores["blinks_per_minute"] == 0
    assert is_positive(relay["steadiness"], relay["exact_steadiness"], relay["largest_jump"])


def test_peers(last_line: LastLine) -> None:
    arguments = ("--small", "--runs", "1", "--parts", "clip,beit3", "--mapped", "--same-malloc")
    parts = last_line("peers.py", *arguments)["parts"]
    assert parts.keys() == {"clip", "beit3"}
    for part in parts.values():
        assert is_positive(part["ratio"], part["cpu_ratio"], part["mapped_ratio"])
        assert part["weights"]["ours"] == part["weights"]["theirs"]


def test_plain_beit3_equals_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    plain = import_module("plain_beit3").PlainBeit3(TINY.beit3).eval()
    shake(plain)
    ours = Beit3(TINY.beit3).eval()
    ours.load_state_dict(plain.state_dict())
    images, text = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images, text), plain(images, text), rtol=1e-4, atol=1e-5)


def test_everything_on_one_gpu(
    last_line: LastLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setitem(import_module("machine").PEAK_SIDE, "cpu", 64)
    monkeypatch.setitem(PRESETS, "evf-sam2", replace(TINY, sam=TINY_SAM2))
    out = tmp_path / "gpu.json"
    sections = ("peaks", "tests", "evf-sam2 network", "evf-sam2 segment", "evf-sam2 profile")
    sections += ("evf-sam2 training", "no-such-preset network", "engines")
    arguments = ("--out", str(out), "--device", "cpu", "--precision", "fp32", "--batches", "2")
    arguments += ("--segment-batches", "2", "--clips", "1", "--runs", "1", "--size", "64x48")
    arguments += ("--rate", "5", "--seconds", "2", "--only", ",".join(sections))
    result = last_line("gpu.py", *arguments)
    assert result == json.loads(out.read_text())
    network, segment = result["evf-sam2 network"], result["evf-sam2 segment"]["batch_2"]
    assert network["mask_iou"] >= 0.99
    assert is_positive(network["ratio"], network["by_batch"]["2"]["frames_per_s"])
    assert segment["frames"] == 10
    assert 0.2 < segment["mean_area"] < 0.8
    assert is_positive(segment["frames_per_s"], result["evf-sam2 training"]["bf16"]["clips_per_s"])
    assert (tmp_path / result["evf-sam2 profile"]["table"]).exists()
    assert "no-such-preset" in result["no-such-preset network"]["error"]
    assert "h264_nvenc" in result["engines"]["encoders"]


def test_startup(last_line: LastLine) -> None:
    result = last_line("startup.py", "--runs", "1", "--first-frames", "1")
    assert is_positive(result["help_over_python"], result["first_frame_s"])
    assert result["torch_imported"] is False


def test_formats(last_line: LastLine) -> None:
    result = last_line("formats.py", "--runs", "1", "--end", "0.2")
    assert result["over_video"]["video"] == result["over_video_cpu"]["video"] == 1
    assert is_positive(*result["over_video"].values(), *result["seconds"].values())


def test_parts_are_equal_to_one_piece(
    last_line: LastLine, tiny_model: Path, make_clip: Callable[..., Path], tone: Callable[..., Any]
) -> None:
    clip = make_clip(rate=10, seconds=2, sounds=[{"samples": tone(2)}])
    result = last_line("parts.py", str(clip), "--seconds", "1", "--model", str(tiny_model))
    masks, video = result["masks"], result["video"]
    assert (masks["frames"], masks["parts"], masks["differing"], masks["missing"]) == (20, 2, [], 0)
    assert video["times_equal"]
    assert video["sound_equal"]
    assert video["picture_levels"] < 1


def test_memory_growth(last_line: LastLine) -> None:
    result = last_line("memory.py", "--minutes", "0.02,0.04", "--device", "cpu")
    assert math.isfinite(result["rss_growth"])
    assert is_positive(*result["peak_rss_mib"])


def test_edges_are_closer_to_the_exact_ones_with_refine(last_line: LastLine) -> None:
    arguments = ("--scenes", "2", "--heights", "540", "--kinds", "drawn", "--logits", "off-256")
    result = last_line("edges.py", *arguments)["edges"]["540"]["drawn"]["off-256"]
    assert result["pictures"] == 2
    assert result["refined"]["iou"] > result["enlarged"]["iou"]
    assert result["refined"]["f"] > result["enlarged"]["f"]
