"""On a CUDA device, results are those of the CPU, and nothing crashes. `pytest -m gpu tests/gpu`.

The deterministic training sets $CUBLAS_WORKSPACE_CONFIG, which cuBLAS reads only once, so it runs
in a process of its own.
"""

import csv
import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from av2tsam_cli.__main__ import main
from av2tsam_cli.embeddings.resample import resize
from av2tsam_cli.hub.checkpoint import save_network
from av2tsam_cli.hub.registry import BUNDLED_MODEL
from av2tsam_cli.inference.device import free_memory
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import Segmenter, compile_network
from av2tsam_cli.model.av2tsam import build
from av2tsam_cli.model.config import ModelConfig
from av2tsam_cli.pipeline import iter_masks
from av2tsam_cli.synth.dataset import write_dataset
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.values import AudioWindow, BoolArray

from ..tiny import TINY, TINY_SAM2, shake

DUET = Path(__file__).parents[2] / "sample_media" / "duet.mp4"
CUDA = torch.device("cuda")
LEAST_IOU = {"fp32": 0.99, "bf16": 0.93, "fp16": 0.97}
"""Of the masks of a video, with those of the CPU in fp32."""

log = logging.getLogger(__name__)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def _needs_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos for training, two for validation and two for testing."""
    out = tmp_path_factory.mktemp("data")
    write_dataset(out, subset="s4", videos=10, seed=5, split_sizes=(6, 2, 2), workers=1)
    return out


@pytest.fixture(scope="module")
def expected() -> list[BoolArray]:
    """The masks of two seconds on the CPU."""
    model = load_model(BUNDLED_MODEL, device="cpu", precision="fp32")
    return [each.mask for each in iter_masks(DUET, model=model, end=2.0, reuse=None)]


def mean_iou(masks: Sequence[BoolArray], others: Sequence[BoolArray]) -> float:
    found = []
    for one, other in zip(masks, others, strict=True):
        union = np.count_nonzero(one | other)
        found.append(np.count_nonzero(one & other) / union if union else 1.0)
    return float(np.mean(found))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_masks_are_those_of_the_cpu(precision: str, expected: list[BoolArray]) -> None:
    model = load_model(BUNDLED_MODEL, device="cuda", precision=precision)
    masks = [each.mask for each in iter_masks(DUET, model=model, end=2.0, reuse=None)]
    assert any(mask.any() for mask in masks)
    found = mean_iou(masks, expected)
    log.info("%s: IoU %.4f", precision, found)
    assert found >= LEAST_IOU[precision]


def test_the_command_writes_the_masks_of_the_cpu(tmp_path: Path, expected: list[BoolArray]) -> None:
    arguments = ["--device", "cuda", "--precision", "fp32", "--format", "masks", "--end", "2"]
    assert main(["segment", str(DUET), "--out", str(tmp_path), *arguments, "--quiet"]) == 0
    files = sorted(tmp_path.glob("duet/*.png"))
    masks = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0 for file in files]
    assert mean_iou(masks, expected) >= 0.98  # some masks are reused


@pytest.mark.parametrize("fps", ["5", "auto"])
def test_the_command_writes_a_video_with_interpolated_masks(tmp_path: Path, fps: str) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["--device", "cuda", "--fps", fps, "--end", "2", "--quiet"]
    assert main(["segment", str(DUET), "--out", str(out), *arguments]) == 0
    assert out.stat().st_size > 0


def test_a_text_prompt(tmp_path: Path) -> None:
    arguments = ["--text", "the bell", "--device", "cuda", "--format", "masks", "--end", "1"]
    assert main(["segment", str(DUET), "--out", str(tmp_path), *arguments, "--quiet"]) == 0
    assert list(tmp_path.glob("duet/*.png"))


def test_frames_are_resized_exactly_as_by_pillow() -> None:
    frames = torch.randint(0, 256, (2, 3, 90, 160), dtype=torch.uint8)
    for name in ("bilinear", "bicubic"):
        for height, width in ((64, 64), (200, 100)):
            on_gpu = resize(frames.to(CUDA), height, width, name).cpu()
            assert torch.equal(on_gpu, resize(frames, height, width, name))


def random_inputs(model: LoadedModel, count: int) -> tuple[list[np.ndarray], list[AudioWindow]]:
    rng, rate_hz = np.random.default_rng(0), model.network.config.clap.rate_hz
    frames = [rng.integers(0, 256, (120, 160, 3), np.uint8) for _ in range(count)]
    sound = rng.normal(0, 0.1, rate_hz).astype(np.float32)
    return frames, [AudioWindow(sound, 0, rate_hz)] * count


def logits_of(model: LoadedModel, count: int) -> torch.Tensor:
    segmenter = Segmenter(model)
    frames, windows = random_inputs(model, count)
    return segmenter.logits(segmenter.prepare(frames), windows).float().cpu()


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result - expected).norm() / expected.norm())


@pytest.fixture(scope="module", params=["sam", "sam2"])
def tiny_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with all parts of a full-size network, each with random weights."""
    config = TINY if request.param == "sam" else replace(TINY, sam=TINY_SAM2)
    path = tmp_path_factory.mktemp("tiny") / f"{request.param}.safetensors"
    save_network(shaken(config), path)
    return path


def shaken(config: ModelConfig) -> torch.nn.Module:
    network = build(config).eval()
    shake(network)
    return network


@pytest.mark.parametrize(("precision", "most"), [("fp32", 0.01), ("bf16", 0.2), ("fp16", 0.05)])
def test_logits_are_those_of_the_cpu(tiny_file: Path, precision: str, most: float) -> None:
    on_cpu = logits_of(load_model(tiny_file, device="cpu", precision="fp32"), 3)
    on_gpu = logits_of(load_model(tiny_file, device="cuda", precision=precision), 3)
    assert on_gpu.isfinite().all()
    error = relative_error(on_gpu, on_cpu)
    log.info("%s: relative error %.2e", precision, error)
    assert error < most


def test_spectrograms_are_not_rounded_to_tf32() -> None:
    clap = load_model(BUNDLED_MODEL, device="cpu", precision="fp32").network.clap
    time_s = torch.arange(clap.config.rate_hz) / clap.config.rate_hz
    loud = (0.9 * torch.sin(2 * torch.pi * 440 * time_s) + 1e-4 * torch.randn_like(time_s))[None]
    with torch.inference_mode():
        expected = clap.logmel(clap.prepare(loud))
        found = clap.to(CUDA).logmel(clap.prepare(loud.to(CUDA))).cpu()
    torch.testing.assert_close(found, expected, atol=0.5, rtol=0)


@pytest.fixture
def limited_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_running_out_of_memory_halves_the_batch(
    limited_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(BUNDLED_MODEL, device="cuda", precision="fp32")
    segmenter = Segmenter(model)
    frames, windows = random_inputs(model, 64)
    inputs = segmenter.prepare(frames)
    whole = segmenter.logits(inputs, windows)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    segmenter.logits(inputs, windows)
    needed = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + 0.6 * needed) / total
    )
    assert relative_error(segmenter.logits(inputs, windows), whole) < 1e-3
    assert segmenter.max_batch_size in {32, 16}
    assert "out of memory with 64 frames per batch: continuing with 32" in caplog.text


def test_cached_memory_counts_as_free() -> None:
    size = 1 << 30
    block = torch.empty(size, dtype=torch.uint8, device=CUDA)
    del block  # the memory stays in PyTorch's cache
    free, _ = torch.cuda.mem_get_info(CUDA)
    assert free_memory(CUDA) >= free + size
    torch.cuda.empty_cache()


def test_a_compiled_network_has_the_same_masks(caplog: pytest.LogCaptureFixture) -> None:
    model = load_model(BUNDLED_MODEL, device="cuda", precision="bf16", packed=False)
    plain = logits_of(model, 6)
    with caplog.at_level(logging.WARNING):
        compiled = compile_network(model, batch_size=4)
    found = logits_of(compiled, 6)  # a whole batch, and one that is filled up
    assert mean_iou(list((found > 0).numpy()), list((plain > 0).numpy())) > 0.9


def test_scores_are_those_of_the_cpu(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {}
    for device in ("cpu", "cuda"):
        arguments = ["--data", str(data), "--subset", "s4", "--split", "test", "--json"]
        arguments += ["--device", device, "--precision", "fp32", "--cache", str(tmp_path / device)]
        assert main(["evaluate", *arguments]) == 0
        scores[device] = json.loads(capsys.readouterr().out)
    for name in ("miou", "f_score"):
        assert scores["cuda"][name] == pytest.approx(scores["cpu"][name], abs=0.01)


def train_options(data: Path, out: Path, **other: object) -> TrainOptions:
    values: dict[str, object] = {"epochs": 2, "batch_size": 2, "lr": 1e-4, "device": "cuda"}
    values |= {"data": str(data), "model": BUNDLED_MODEL, "cache": data / "cache", **other}
    return TrainOptions(out=out, **values)  # type: ignore[arg-type]


def losses(out: Path) -> list[float]:
    with (out / "steps.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "other",
    [
        {"precision": "fp32"},
        {"precision": "bf16", "gradient_checkpointing": True, "accumulate": 2},
        {"precision": "fp16", "clip_norm": 1.0},
        {"precision": "bf16", "ema": 0.9, "augment": True},
    ],
    ids=["fp32", "bf16", "fp16", "ema-augment"],
)
def test_training(data: Path, tmp_path: Path, other: dict[str, object]) -> None:
    result = train(train_options(data, tmp_path / "run", **other))
    assert np.isfinite(losses(tmp_path / "run")).all()
    assert result.epochs[-1].val_miou > 0.3


def test_losses_are_those_of_the_cpu(data: Path, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        options = train_options(
            data, tmp_path / device, device=device, precision="fp32", max_steps=3, test=False
        )
        train(options)
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=0.02)


def test_a_resumed_training_continues(data: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(train_options(data, whole, precision="fp32", test=False))
    train(train_options(data, parts, precision="fp32", test=False, max_steps=4))
    train(train_options(data, parts, precision="fp32", test=False, resume=True))
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-3)


TWICE = """
import sys
from dataclasses import replace
from pathlib import Path
from av2tsam_cli.hub.tensor_file import TensorFile
from av2tsam_cli.training.loop import train
from av2tsam_cli.training.options import TrainOptions
data, out, file = sys.argv[1:]
for name in ("one", "two"):
    train(TrainOptions(
        out=Path(out, name), data=data, model=file, cache=Path(out, "cache"), device="cuda",
        epochs=1, batch_size=2, precision="bf16", deterministic=True, test=False, init="auto",
    ))
weights = [Path(out, name, "best.safetensors").read_bytes() for name in ("one", "two")]
tensors = []
from safetensors.torch import load_file
import torch
one, two = (load_file(Path(out, name, "best.safetensors")) for name in ("one", "two"))
different = [name for name in one if not torch.equal(one[name], two[name])]
print(len(one), "tensors,", len(different), "different", different[:5])
sys.exit(bool(different))
"""


@pytest.mark.parametrize("network", ["nano", "tiny"])
def test_deterministic_training(
    data: Path, tmp_path: Path, network: str, request: pytest.FixtureRequest
) -> None:
    file = "nano"
    if network == "tiny":  # SAM 2's blocks pool their queries
        file = str(tmp_path / "sam2.safetensors")
        save_network(shaken(replace(TINY, sam=TINY_SAM2)), Path(file))
    command = [sys.executable, "-c", TWICE, str(data), str(tmp_path), file]
    done = subprocess.run(  # noqa: S603 - our own script
        command, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
