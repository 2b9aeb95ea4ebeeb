import logging
import shutil
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from av2tsam_cli.errors import Av2tsamError, UsageError, WeightsError
from av2tsam_cli.inference.device import choose_device, choose_precision, torch_threads
from av2tsam_cli.inference.loading import LoadedModel, load_model
from av2tsam_cli.inference.segmenter import Segmenter, compile_network
from av2tsam_cli.values import AudioWindow


@pytest.fixture(scope="module")
def model(tiny_model: object) -> LoadedModel:
    return load_model(str(tiny_model), device="cpu", precision="fp32")


def window(index: int, level: float, rate_hz: int) -> AudioWindow:
    rng = np.random.default_rng(index)
    noise = rng.normal(0.0, level, rate_hz).astype(np.float32)
    return AudioWindow(noise, index=index, rate_hz=rate_hz)


def test_auto_selects_an_available_device_and_precision() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in {"cpu", "cuda", "mps"}
    assert choose_precision("auto", torch.device("cpu")) in {"fp32", "bf16"}
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.cpu
def test_auto_is_bf16_only_on_cpus_with_instructions_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu, {"avx512_bf16": True}) == "bf16"
    assert choose_precision("auto", cpu, {"avx2": True}) == "fp32"
    assert choose_precision("bf16", cpu, {"avx512_bf16": True}) == "bf16"
    assert not caplog.messages
    assert choose_precision("bf16", cpu, {"avx2": True}) == "bf16"
    assert "slower than fp32 on this CPU" in caplog.text


def test_an_unavailable_device_or_precision_is_an_error() -> None:
    with pytest.raises(UsageError, match="`device` tpu: not available; use auto or one of"):
        choose_device("tpu")
    with pytest.raises(UsageError, match="`precision` fp16"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(UsageError, match="`precision` int8"):
        choose_precision("int8", torch.device("cpu"))


@pytest.mark.cpu
@pytest.mark.parametrize("packed", [False, True])
def test_logits_in_bf16_are_close_to_fp32_with_and_without_packing(
    tiny_model: Path, packed: bool
) -> None:
    frames = [np.random.default_rng(k).integers(0, 256, (48, 64, 3), np.uint8) for k in range(3)]
    tone = np.sin(np.arange(8_000) / 5, dtype=np.float32) / 2
    windows = [AudioWindow(tone, index=0, rate_hz=8_000)] * 3
    logits = []
    for precision in ("fp32", "bf16"):
        model = load_model(str(tiny_model), device="cpu", precision=precision, packed=packed)
        segmenter = Segmenter(model)
        logits.append(segmenter.logits(segmenter.prepare(frames), windows).float())
    exact, rough = logits
    # Measured: 0.010 on a Zen 5 CPU, packed or not; 0.013 on an emulated Haswell.
    assert (rough - exact).abs().max() < 0.03 * exact.abs().max()


def test_a_loaded_model_stores_its_name_device_and_precision(model: LoadedModel) -> None:
    assert model.name.endswith("tiny.safetensors")
    assert (model.device.type, model.precision) == ("cpu", "fp32")
    assert not model.network.training
    assert model.light
    assert model.batch_size >= 1
    assert model.cpu_threads >= 1


def test_each_audio_window_is_embedded_once(model: LoadedModel) -> None:
    segmenter = Segmenter(model)
    embedded: list[int] = []
    hook = model.network.clap.register_forward_pre_hook(
        lambda _, inputs: embedded.append(inputs[0].shape[0])
    )
    frames = [np.full((48, 64, 3), 60 * k, np.uint8) for k in range(4)]
    first, second = (window(k, 0.1, segmenter.rate_hz) for k in range(2))
    try:
        inputs = segmenter.prepare(frames)
        mixed = segmenter.logits(inputs, [first, first, second, second])
        again = segmenter.logits(inputs, [second] * 4)
    finally:
        hook.remove()
    assert embedded == [1, 1]  # one by one, so that no result depends on what is beside it
    assert mixed.shape[:2] == (4, 1)
    assert torch.allclose(mixed[2:], again[2:], atol=1e-4)


def test_windows_of_another_video_are_embedded_again(model: LoadedModel) -> None:
    segmenter = Segmenter(model)
    inputs = segmenter.prepare([np.full((48, 64, 3), 90, np.uint8)])
    rng = np.random.default_rng(5)
    other = AudioWindow(
        rng.normal(0.0, 0.4, segmenter.rate_hz).astype(np.float32),
        index=0,
        rate_hz=segmenter.rate_hz,
    )
    segmenter.logits(inputs, [window(0, 0.1, segmenter.rate_hz)])
    expected = Segmenter(model).logits(inputs, [other])
    assert torch.equal(segmenter.logits(inputs, [other]), expected)


def test_the_masks_depend_on_the_audio(model: LoadedModel) -> None:
    segmenter = Segmenter(model)
    inputs = segmenter.prepare([np.full((48, 64, 3), 90, np.uint8)])
    one, other = (window(k, 0.1 * 3**k, segmenter.rate_hz) for k in range(2))
    assert not torch.equal(segmenter.logits(inputs, [one]), segmenter.logits(inputs, [other]))


def test_text_prompts_need_no_audio(tiny_model: object) -> None:
    model = load_model(str(tiny_model), device="cpu", precision="fp32", use="text")
    assert all(p.is_meta for p in model.network.clap.parameters())
    frames = [np.full((48, 64, 3), 60 * k, np.uint8) for k in range(3)]
    dog, bell = (Segmenter(model, text) for text in ("the dog", "the bell"))
    inputs = dog.prepare(frames)
    assert dog.logits(inputs, []).shape[:2] == (3, 1)
    assert not torch.equal(dog.logits(inputs, []), bell.logits(inputs, []))
    # One phrase serves all frames of a batch.
    alone = dog.logits(dog.prepare(frames[1:2]), [])
    assert torch.allclose(dog.logits(inputs, [])[1:2], alone, atol=1e-4)


def test_a_text_prompt_is_embedded_once(model: LoadedModel) -> None:
    embedded: list[int] = []
    hook = model.network.text_sam.beit3.text_embed.register_forward_hook(
        lambda *_: embedded.append(1)
    )
    try:
        segmenter = Segmenter(model, "the drum")
        inputs = segmenter.prepare([np.full((48, 64, 3), 90, np.uint8)])
        for _ in range(3):
            segmenter.logits(inputs, [])
    finally:
        hook.remove()
    assert embedded == [1]


def test_a_model_loaded_for_text_prompts_rejects_audio(tiny_model: object) -> None:
    model = load_model(str(tiny_model), device="cpu", use="text")
    with pytest.raises(WeightsError, match=r"loaded with `use` text.* `use` trained"):
        Segmenter(model)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]


def memory_for(model: LoadedModel, most: int) -> torch.utils.hooks.RemovableHandle:
    """Make the image encoder raise OutOfMemoryError for more than `most` frames."""

    def check(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("out of memory")

    return model.network.text_sam.image_encoder.register_forward_pre_hook(check)


def test_running_out_of_memory_halves_the_batch_with_one_warning(
    model: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    segmenter = Segmenter(model)
    inputs = segmenter.prepare(pictures(7))
    windows = [window(k // 4, 0.1, segmenter.rate_hz) for k in range(7)]
    whole = segmenter.logits(inputs, windows)
    hook = memory_for(model, 3)
    try:
        in_parts = segmenter.logits(inputs, windows)
        again = segmenter.logits(inputs, windows)
    finally:
        hook.remove()
    torch.testing.assert_close(in_parts, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(again, whole, atol=1e-4, rtol=1e-4)
    assert [r.getMessage() for r in caplog.records] == [
        "out of memory with 7 frames per batch: continuing with 3"
    ]


def test_the_memory_of_a_failed_batch_is_free_before_the_next_one(model: LoadedModel) -> None:
    segmenter = Segmenter(model)
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def fail_once(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        alive.extend(reference() is not None for reference in held)
        if not held:
            activations = inputs[0] + 1
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("out of memory")

    class OnWarning(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            alive.extend(reference() is not None for reference in held)

    handler, logger = OnWarning(), logging.getLogger("av2tsam_cli.inference.segmenter")
    hook = model.network.text_sam.image_encoder.register_forward_pre_hook(fail_once)
    logger.addHandler(handler)
    try:
        segmenter.logits(segmenter.prepare(pictures(2)), [window(0, 0.1, segmenter.rate_hz)] * 2)
    finally:
        logger.removeHandler(handler)
        hook.remove()
    assert alive
    assert not any(alive)


def test_memory_that_pytorch_has_cached_counts_as_free(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu = replace(model, device=torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 1 << 30)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 1 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 << 30, 20 << 30))
    empty_cache = on_gpu.batch_size
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 11 << 30)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 20 << 30))
    assert on_gpu.batch_size == empty_cache > 1
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 11 << 30)
    assert on_gpu.batch_size == 1


def test_too_little_memory_for_one_frame_is_an_error(model: LoadedModel) -> None:
    segmenter = Segmenter(model)
    inputs = segmenter.prepare(pictures(2))
    hook = memory_for(model, 0)
    try:
        with pytest.raises(Av2tsamError, match=r"too small for one frame.*`device` to cpu"):
            segmenter.logits(inputs, [window(0, 0.1, segmenter.rate_hz)] * 2)
    finally:
        hook.remove()


def test_large_frames_are_resized_a_few_at_a_time(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(model)
    together = segmenter.prepare(pictures(5))
    monkeypatch.setattr("av2tsam_cli.inference.segmenter.PIXELS_PER_RESIZE", 2 * 48 * 64)
    few = segmenter.prepare(pictures(5))
    assert torch.equal(together.sam, few.sam)
    assert together.clip is not None
    assert few.clip is not None
    assert torch.equal(together.clip, few.clip)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler")
def test_a_compiled_network_gives_the_same_masks_for_any_number_of_frames(
    tiny_model: object,
) -> None:
    plain, fast = (load_model(str(tiny_model), device="cpu", precision="fp32") for _ in range(2))
    fast = compile_network(fast, 4)
    windows = [window(0, 0.1, Segmenter(plain).rate_hz)] * 4
    for count in (4, 1, 3):
        expected, compiled = (
            Segmenter(m).logits(Segmenter(m).prepare(pictures(count)), windows[:count])
            for m in (plain, fast)
        )
        torch.testing.assert_close(compiled, expected, atol=1e-3, rtol=1e-3)


def test_the_number_of_threads_changes_on_this_thread_only_and_is_restored() -> None:
    before = torch.get_num_threads()
    threads_in_new_thread: list[int] = []

    def count_in_new_thread() -> None:
        thread = threading.Thread(
            target=lambda: threads_in_new_thread.append(torch.get_num_threads())
        )
        thread.start()
        thread.join()

    count_in_new_thread()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        count_in_new_thread()
    assert torch.get_num_threads() == before
    count_in_new_thread()
    assert len(set(threads_in_new_thread)) == 1
