"""CLIP and its preprocessing against torchvision's transforms."""

import pytest
import torch
from PIL import Image
from torchvision import transforms

from av2tsam_cli.embeddings.clip import MEAN, STD, ClipConfig, ClipEmbedder

TINY_VIT = ClipConfig(
    embed_dim=12, image_size=32, layers=2, width=16, head_width=8, patch_size=16, quick_gelu=True
)
TINY_RESNET = ClipConfig(embed_dim=12, image_size=64, layers=(1, 1, 1, 1), width=8, patch_size=None)


def frame(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (45, 80), (80, 45), (20, 31)])
def test_preprocessing_with_cropping_equals_openais(height: int, width: int) -> None:
    size = TINY_VIT.image_size
    reference = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    frames = frame(height, width)
    expected = reference(Image.fromarray(frames[0].permute(1, 2, 0).numpy()))
    torch.testing.assert_close(ClipEmbedder(TINY_VIT).preprocess(frames, crop=True)[0], expected)


def test_the_default_squashes_the_frame_and_keeps_its_borders() -> None:
    frames = frame(20, 60)
    frames[..., :10] = 255  # a bright left border that a centre crop would cut off
    image = ClipEmbedder(TINY_VIT).preprocess(frames)
    assert image.shape == (1, 3, 32, 32)
    assert image[..., :4].mean() > image[..., 8:].mean() + 1.0


@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET])
def test_frames_of_a_batch_are_independent(config: ClipConfig) -> None:
    torch.manual_seed(0)
    embedder = ClipEmbedder(config).eval()
    images = torch.randn(3, 3, config.image_size, config.image_size)
    with torch.inference_mode():
        together = embedder(images)
        alone = torch.cat([embedder(image[None]) for image in images])
    assert together.shape == (3, config.embed_dim)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_defaults_are_vit_b_32() -> None:
    with torch.device("meta"):
        embedder = ClipEmbedder(ClipConfig())
    assert sum(p.numel() for p in embedder.parameters()) == 87_849_216
