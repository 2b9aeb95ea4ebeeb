"""The whole network: shapes, precision, gradients, and the effect of every input."""

import dataclasses

import pytest
import torch

from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import NANO, ModelConfig
from av2tsam_cli.model.sam import best_mask

from ..tiny import TINY

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(model: Av2tSam, count: int = 2) -> Inputs:
    generator = torch.Generator().manual_seed(7)
    frames = torch.randint(0, 256, (count, 3, 40, 60), dtype=torch.uint8, generator=generator)
    windows = torch.randn(count, model.config.clap.rate_hz, generator=generator) * 0.1
    with torch.no_grad():
        clip, clap = model.embed_frames(frames), model.embed_windows(windows)
    return (*model.prepare(frames), clip, clap)


def test_masks_and_scores_have_the_documented_shapes(tiny_network: Av2tSam) -> None:
    with torch.inference_mode():
        prediction = tiny_network(*inputs(tiny_network))
    side = 4 * tiny_network.config.sam.grid
    assert prediction.logits.shape == (2, 4, side, side)
    assert prediction.iou.shape == (2, 4)
    resized = tiny_network.text_sam.resize(best_mask(prediction), (40, 60))
    assert resized.shape == (2, 1, 40, 60)


def test_frames_of_a_batch_are_independent(tiny_network: Av2tSam) -> None:
    batch = inputs(tiny_network, count=3)
    with torch.inference_mode():
        together = tiny_network(*batch).logits
        alone = torch.cat([tiny_network(*(x[n : n + 1] for x in batch)).logits for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changed", range(4))
def test_every_input_changes_the_masks(tiny_network: Av2tSam, changed: int) -> None:
    batch = list(inputs(tiny_network))
    with torch.inference_mode():
        before = tiny_network(*batch).logits
        batch[changed] = batch[changed].flip(0)
        after = tiny_network(*batch).logits
    assert not torch.allclose(before, after, rtol=1e-3, atol=1e-3)


def test_only_the_part_that_the_paper_trains_gets_gradients(tiny_network: Av2tSam) -> None:
    tiny_network.freeze_encoders()
    batch = inputs(tiny_network)
    prediction = tiny_network(*batch)
    (prediction.logits.square().mean() + prediction.iou.sum()).backward()
    trained = {name for name, p in tiny_network.named_parameters() if p.grad is not None}
    assert all(tiny_network.get_parameter(name).grad.isfinite().all() for name in trained)  # type: ignore[union-attr]
    kinds = {name.split(".")[0] for name in trained}
    assert kinds == {"projector", "adapter", "text_sam"}
    assert not any("image_encoder" in name or "beit3" in name for name in trained)
    # Gradients reach the adapters through the frozen image encoder.
    first = next(tiny_network.adapter.parameters()).grad  # type: ignore[union-attr]
    assert first is not None
    assert first.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_training_under_autocast(tiny_config: ModelConfig, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = build(tiny_config).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        prediction = model(*inputs(model))
    assert prediction.logits.dtype == torch.float32
    prediction.logits.mean().backward()


def test_16_bit_weights_run_without_autocast(tiny_network: Av2tSam) -> None:
    batch = inputs(tiny_network)
    with torch.inference_mode():
        exact = tiny_network(*batch).logits
        half = tiny_network.to(torch.bfloat16)(*batch).logits
    assert (half - exact).abs().mean() < 0.1 * exact.std()


def test_a_network_without_an_adapter() -> None:
    model = build(dataclasses.replace(TINY, adapter=False)).eval()
    assert model.adapter is None
    with torch.inference_mode():
        assert model(*inputs(model)).logits.isfinite().all()


def test_text_prompts_need_no_audio(tiny_network: Av2tSam) -> None:
    sam, beit, _, _ = inputs(tiny_network, count=1)
    dog, bell = torch.tensor([[0, 4, 5, 2]]), torch.tensor([[0, 4, 6, 2]])
    with torch.inference_mode():
        phrases = [tiny_network.embed_text(ids) for ids in (dog, bell)]
        masks = [tiny_network.segment_text(sam, beit, phrase) for phrase in phrases]
    assert masks[0].shape == (1, 1, *masks[0].shape[2:])
    assert not torch.allclose(masks[0], masks[1])


def test_nano_runs_and_is_small() -> None:
    model = build(NANO).eval()
    assert sum(p.numel() for p in model.parameters()) < 10_000_000
    with torch.inference_mode():
        assert model(*inputs(model, count=1)).logits.shape == (1, 4, 64, 64)
