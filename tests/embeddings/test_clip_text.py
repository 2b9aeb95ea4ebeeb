"""CLIP's text encoder against transformers' CLIP."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from av2tsam_cli.embeddings.clip import ClipConfig
from av2tsam_cli.embeddings.clip_text import ClipText, ClipTokenizer
from av2tsam_cli.embeddings.text import TextConfig

from ..tiny import shake

TINY = ClipConfig(
    embed_dim=12,
    text=TextConfig(vocabulary_size=49_408, positions=77, dim=16, layers=2, heads=2),
)


@pytest.mark.parametrize("quick", [True, False])
def test_embeddings_equal_transformers_clip(*, quick: bool) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    ours = ClipText(dataclasses.replace(TINY, quick_gelu=quick)).eval()
    shake(ours)
    reference = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=49_408,
            hidden_size=16,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=12,
            hidden_act="quick_gelu" if quick else "gelu",
            bos_token_id=49_406,
            eos_token_id=49_407,
            pad_token_id=0,
        )
    ).eval()
    weights = ours.encoder.state_dict()
    model = "text_model."
    state = {
        f"{model}embeddings.token_embedding.weight": weights["token_embedding.weight"],
        f"{model}embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_projection.weight": weights["text_projection"].T,
    }
    for kind in ("weight", "bias"):
        state[f"{model}final_layer_norm.{kind}"] = weights[f"ln_final.{kind}"]
        for layer in range(2):
            source, target = f"transformer.resblocks.{layer}.", f"{model}encoder.layers.{layer}."
            attention = weights[f"{source}attn.in_proj_{kind}"].chunk(3)
            for name, part in zip("qkv", attention, strict=True):
                state[f"{target}self_attn.{name}_proj.{kind}"] = part
            for old, new in (
                ("attn.out_proj", "self_attn.out_proj"),
                ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"),
                ("mlp.c_fc", "mlp.fc1"),
                ("mlp.c_proj", "mlp.fc2"),
            ):
                state[f"{target}{new}.{kind}"] = weights[f"{source}{old}.{kind}"]
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("position_ids") for name in missing)
    ids = ClipTokenizer()(["a dog barking", "an acoustic guitar, played by two people"])
    with torch.inference_mode():
        found, expected = ours(ids), reference(ids).text_embeds
    assert (F.normalize(found) - F.normalize(expected)).norm() / 2**0.5 < 1e-5


def test_the_published_encoder_has_the_published_size() -> None:
    text = TextConfig(vocabulary_size=49_408, positions=77, dim=512, layers=12, heads=8)
    with torch.device("meta"):
        encoder = ClipText(dataclasses.replace(TINY, embed_dim=512, text=text))
    assert sum(p.numel() for p in encoder.parameters()) == 63_428_096 + 1
