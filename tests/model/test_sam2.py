"""Our SAM 2 against transformers' Sam2Model with the same weights."""

import re
import warnings
from typing import Any

import pytest
import torch

from av2tsam_cli.model.config import Sam2Config
from av2tsam_cli.model.hiera import HieraAttention
from av2tsam_cli.model.sam import ImageFeatures, SamPromptEncoder
from av2tsam_cli.model.sam2 import Sam2ImageEncoder, Sam2MaskDecoder

from ..tiny import TINY_SAM2, shake

# From our names of decoder weights to those of transformers.
DECODER_NAMES = (
    (r"transformer\.layers\.(\d+)\.norm(\d)", r"transformer.layers.\1.layer_norm\2"),
    (r"transformer\.norm_final_attn", "transformer.layer_norm_final_attn"),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.mlp\.lin1\.", ".mlp.proj_in."),
    (r"\.mlp\.lin2\.", ".mlp.proj_out."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(mlps\.\d|prediction_head|score_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|prediction_head|score_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(mlps\.\d|prediction_head|score_head)\.layers\.2\.", r"\1.proj_out."),
)


def theirs(name: str) -> str:
    for pattern, replacement in DECODER_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def reference(config: Sam2Config) -> Any:
    """Build transformers' image model with our sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.sam2 import configuration_sam2 as configuration
        from transformers.models.sam2 import modeling_sam2 as sam2
    heads = [config.heads * 2**n for n in range(4)]
    hiera = configuration.Sam2HieraDetConfig(
        hidden_size=config.dim,
        num_attention_heads=config.heads,
        image_size=[config.image_size] * 2,
        window_positional_embedding_background_size=list(config.background),
        blocks_per_stage=list(config.stages),
        embed_dim_per_stage=list(config.stage_dims),
        num_attention_heads_per_stage=heads,
        window_size_per_stage=list(config.windows),
        global_attention_blocks=list(config.global_blocks),
    )
    vision = configuration.Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=list(reversed(config.stage_dims)),
        fpn_hidden_size=config.decoder_dim,
    )
    decoder = configuration.Sam2MaskDecoderConfig(
        hidden_size=config.decoder_dim,
        mlp_dim=config.decoder_mlp_dim,
        num_attention_heads=config.decoder_heads,
        num_hidden_layers=config.decoder_depth,
        iou_head_hidden_dim=config.iou_head_dim,
    )
    torch.manual_seed(0)
    parts = (sam2.Sam2VisionModel(vision).eval(), sam2.Sam2MaskDecoder(decoder).eval())
    for part in parts:
        shake(part)
    return parts


@pytest.fixture(scope="module")
def networks() -> tuple[Any, Any, Sam2ImageEncoder, Sam2MaskDecoder]:
    vision, their_decoder = reference(TINY_SAM2)
    encoder, decoder = Sam2ImageEncoder(TINY_SAM2).eval(), Sam2MaskDecoder(TINY_SAM2).eval()
    encoder.backbone.load_state_dict(vision.backbone.state_dict())
    encoder.neck.load_state_dict(vision.neck.convs.state_dict())
    weights = their_decoder.state_dict()
    decoder.load_state_dict({name: weights[theirs(name)] for name in decoder.state_dict()})
    return vision, their_decoder, encoder, decoder


def images() -> torch.Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(5))


def test_the_encoder_equals_transformers(
    networks: tuple[Any, Any, Sam2ImageEncoder, Sam2MaskDecoder],
) -> None:
    # Windows of 4 on a 6 x 6 grid need padding, and become 2 when the grid is halved to 3 x 3.
    vision, _, encoder, _ = networks
    with torch.inference_mode():
        expected = vision(images()).fpn_hidden_states
        for ours, level in zip(encoder(images()), expected, strict=True):
            torch.testing.assert_close(ours, level, rtol=1e-4, atol=1e-4)


def test_projecting_windows_equals_cutting_projected_tokens() -> None:
    attention = HieraAttention(12, 12, heads=3, window=4, shrinks=False)
    tokens = torch.randn(2, 8, 12, 12)
    torch.testing.assert_close(attention.in_whole_windows(tokens, (4, 4)), attention(tokens))


def test_no_mem_embed_is_added_to_the_coarsest_level_only() -> None:
    encoder = Sam2ImageEncoder(TINY_SAM2).eval()
    with torch.inference_mode():
        before = encoder(images())
        encoder.no_mem_embed.add_(1.0)
        after = encoder(images())
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    torch.testing.assert_close(before[2] + 1.0, after[2])


def test_the_decoder_equals_transformers(
    networks: tuple[Any, Any, Sam2ImageEncoder, Sam2MaskDecoder],
) -> None:
    _, their_decoder, encoder, decoder = networks
    prompts = SamPromptEncoder(TINY_SAM2)
    shake(prompts)
    prompt = torch.randn(2, 1, TINY_SAM2.decoder_dim, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features: ImageFeatures = decoder.image_features(encoder(images()))
        ours = decoder(features, prompts.positions(), prompts.dense(), prompt)
        # Its arguments have an axis for several prompts per image; there is one.
        logits, iou, _, score = their_decoder(
            image_embeddings=features.embedding,
            image_positional_embeddings=prompts.positions().expand(2, -1, -1, -1),
            sparse_prompt_embeddings=prompt[:, None],
            dense_prompt_embeddings=prompts.dense(),
            multimask_output=True,
            high_resolution_features=list(features.high_res),
        )
    torch.testing.assert_close(ours.logits[:, 1:], logits[:, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.iou[:, 1:], iou[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.object_score, score[:, 0], rtol=1e-4, atol=1e-4)


def test_the_first_block_of_a_stage_has_the_previous_width() -> None:
    assert TINY_SAM2.block_dims == (8, 8, 16, 16, 32, 32, 32)
    assert Sam2Config().block_dims == (144,) * 3 + (288,) * 6 + (576,) * 36 + (1152,) * 3
