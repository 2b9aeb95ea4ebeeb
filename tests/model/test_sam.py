"""Our SAM 1 against the forward pass of segment-anything."""

import dataclasses
import importlib

import pytest
import torch

from av2tsam_cli.model.blocks import from_windows, to_windows
from av2tsam_cli.model.config import SamConfig
from av2tsam_cli.model.sam import (
    HighResMaskDecoder,
    ImageFeatures,
    SamImageEncoder,
    SamMaskDecoder,
    SamPromptEncoder,
    fourier_positions,
)

from ..tiny import TINY_SAM, shake


def encoder(config: SamConfig) -> SamImageEncoder:
    torch.manual_seed(0)
    network = SamImageEncoder(config)
    network.eval()
    shake(network)
    return network


def images(count: int, config: SamConfig) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, config.image_size, config.image_size, generator=generator)


@pytest.mark.parametrize("window_size", [2, 3, 5, 8])
def test_the_encoder_equals_segment_anythings(window_size: int) -> None:
    # The grid is 8 x 8: windows of 3 and 5 need padding, one of 8 covers the image.
    config = dataclasses.replace(TINY_SAM, window_size=window_size)
    ours = encoder(config)
    theirs = super(SamImageEncoder, ours).forward
    with torch.inference_mode():
        torch.testing.assert_close(ours(images(2, config)), theirs(images(2, config)))


def test_a_vector_is_added_to_every_position_of_its_blocks_input() -> None:
    ours = encoder(TINY_SAM)
    vectors = [torch.zeros(1, TINY_SAM.dim) for _ in range(TINY_SAM.depth)]
    vectors[0] = torch.randn(1, TINY_SAM.dim, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        told = ours(images(1, TINY_SAM), vectors)
        assert ours.pos_embed is not None
        ours.pos_embed += vectors[0]
        torch.testing.assert_close(told, ours(images(1, TINY_SAM)))


def test_from_windows_is_the_inverse_of_to_windows() -> None:
    tokens, fill = torch.randn(2, 7, 10, 6), torch.arange(6.0)
    windows = to_windows(tokens, (4, 4), 2, fill)
    assert windows.shape == (2 * 2 * 3, 2, 4 * 4, 3)
    assert torch.equal(windows[0, 1, 5], tokens[0, 1, 1, 3:])
    assert torch.equal(windows[-1, 1, -1], fill[3:])  # beyond the grid
    assert torch.equal(from_windows(windows, (4, 4), (2, 7, 10)), tokens)


def test_the_convolutional_stem_has_the_same_output_shape() -> None:
    network = encoder(dataclasses.replace(TINY_SAM, stem="conv"))
    with torch.inference_mode():
        features = network(images(2, TINY_SAM))
    assert features.shape == (2, TINY_SAM.decoder_dim, TINY_SAM.grid, TINY_SAM.grid)


def test_a_batch_is_decoded_as_segment_anything_decodes_single_images() -> None:
    torch.manual_seed(0)
    decoder, prompts = SamMaskDecoder(TINY_SAM).eval(), SamPromptEncoder(TINY_SAM)
    shake(decoder)
    shake(prompts)
    generator = torch.Generator().manual_seed(2)
    embedding = torch.randn(3, TINY_SAM.decoder_dim, 8, 8, generator=generator)
    prompt = torch.randn(3, 1, TINY_SAM.decoder_dim, generator=generator)
    with torch.inference_mode():
        together = decoder(ImageFeatures(embedding), prompts.positions(), prompts.dense(), prompt)
        _, dense = prompts(points=None, boxes=None, masks=None)
        for n in range(3):
            logits, iou = decoder.predict_masks(
                image_embeddings=embedding[n : n + 1],
                image_pe=prompts.get_dense_pe(),
                sparse_prompt_embeddings=prompt[n : n + 1],
                dense_prompt_embeddings=dense,
            )
            torch.testing.assert_close(together.logits[n : n + 1], logits)
            torch.testing.assert_close(together.iou[n : n + 1], iou)


def test_the_positions_equal_segment_anythings() -> None:
    module = importlib.import_module("segment_anything.modeling.prompt_encoder")
    layer = module.PositionEmbeddingRandom(6)
    expected = layer((5, 9))[None]
    matrix = layer.positional_encoding_gaussian_matrix
    torch.testing.assert_close(fourier_positions(matrix, 5, 9), expected)
    half = fourier_positions(matrix.to(torch.bfloat16), 5, 9)
    assert half.dtype == torch.float32


HIGH_RES = dataclasses.replace(TINY_SAM, stem="conv", high_res=True)


def test_high_res_adds_the_stems_maps_and_changes_nothing_else() -> None:
    with_maps, plain = encoder(HIGH_RES), encoder(dataclasses.replace(HIGH_RES, high_res=False))
    with torch.inference_mode():
        fine, middle, coarse = with_maps(images(2, HIGH_RES))
        torch.testing.assert_close(coarse, plain(images(2, HIGH_RES)))
    grid, dim = HIGH_RES.grid, HIGH_RES.dim
    assert fine.shape == (2, dim // 4, 4 * grid, 4 * grid)
    assert middle.shape == (2, dim // 2, 2 * grid, 2 * grid)


def test_masks_follow_the_finer_maps() -> None:
    torch.manual_seed(0)
    decoder = HighResMaskDecoder(HIGH_RES, (HIGH_RES.dim // 4, HIGH_RES.dim // 2)).eval()
    prompts = SamPromptEncoder(HIGH_RES)
    levels = encoder(HIGH_RES)(images(1, HIGH_RES))
    prompt = torch.randn(1, 1, HIGH_RES.decoder_dim)

    def masks(levels: list[torch.Tensor]) -> torch.Tensor:
        features = decoder.image_features(levels)
        with torch.inference_mode():
            logits = decoder(features, prompts.positions(), prompts.dense(), prompt).logits
        return torch.as_tensor(logits)

    before = masks(levels)
    levels[0][:, :, 3, 5] += 1.0
    changed = (masks(levels) != before).any(1)[0]
    assert changed[3, 5]
    assert changed.sum() == 1
