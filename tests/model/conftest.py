"""Tiny networks with every part of the real ones."""

import dataclasses

import pytest
import torch
from torch import nn

from av2tsam_cli.embeddings.clap import ClapConfig
from av2tsam_cli.embeddings.clip import ClipConfig
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import Beit3Config, ModelConfig, Sam2Config, SamConfig

TINY_SAM = SamConfig(
    image_size=64,
    patch_size=8,
    dim=24,
    depth=3,
    heads=3,
    window_size=3,
    global_blocks=(1,),
    decoder_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=24,
    iou_head_dim=16,
)
TINY_SAM2 = Sam2Config(
    image_size=96,
    dim=8,
    heads=2,
    stages=(1, 2, 3, 1),
    global_blocks=(4,),
    windows=(6, 4, 5, 2),
    background=(7, 7),
    decoder_dim=16,
    decoder_heads=2,
    decoder_mlp_dim=24,
    iou_head_dim=16,
)
TINY_CLAP = ClapConfig(
    embed_dim=10,
    rate_hz=8_000,
    mel_rate_hz=8_000,
    n_fft=256,
    hop=250,
    mel_bins=16,
    fmax_hz=4_000,
    clip_samples=8_000,
    spec_size=32,
    dim=8,
    depths=(2, 2),
    heads=(1, 2),
    window_size=4,
    classes=1,
)
TINY = ModelConfig(
    name="tiny",
    sam=TINY_SAM,
    beit3=Beit3Config(
        image_size=32, dim=16, heads=2, ffn_dim=24, depth=2, vocabulary_size=12, text_positions=16
    ),
    clip=ClipConfig(embed_dim=12, image_size=32, layers=1, width=16, head_width=8, patch_size=16),
    clap=TINY_CLAP,
    feature_dim=14,
    words=("<bos>", "<pad>", "<eos>", "<unk>", "the", "dog", "bell"),
)


def shake(module: nn.Module, seed: int = 0) -> None:
    """Give every weight a random value, so that nothing is zero or one by its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.5 / max(parameter.shape[-1], 1) ** 0.5))


@pytest.fixture(params=[TINY_SAM, TINY_SAM2], ids=["sam", "sam2"])
def tiny_config(request: pytest.FixtureRequest) -> ModelConfig:
    return dataclasses.replace(TINY, sam=request.param)


@pytest.fixture
def tiny_model(tiny_config: ModelConfig) -> Av2tSam:
    torch.manual_seed(0)
    model = build(tiny_config).eval()
    shake(model)
    return model
