"""CLAP's text encoders against transformers' CLAP, and GPT-2 with the head written by hand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap_text import LaionText, MicrosoftText
from av2tsam_cli.embeddings.text import TextConfig

from ..tiny import TINY_TEXT, shake

IDS = [[0, 9, 30, 47, 200, 2], [0, 51, 7, 2, 1, 1]]
EMBED_DIM = 10


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def shaken(module: nn.Module) -> nn.Module:
    shake(module)
    return module.eval()


def test_laion_equals_transformers_clap() -> None:
    from transformers import ClapTextConfig, ClapTextModelWithProjection

    ours = shaken(LaionText(TINY_TEXT, EMBED_DIM))
    reference = ClapTextModelWithProjection(
        ClapTextConfig(
            vocab_size=TINY_TEXT.vocabulary_size,
            hidden_size=TINY_TEXT.dim,
            num_hidden_layers=TINY_TEXT.layers,
            num_attention_heads=TINY_TEXT.heads,
            intermediate_size=4 * TINY_TEXT.dim,
            max_position_embeddings=TINY_TEXT.positions,
            layer_norm_eps=1e-5,  # RoBERTa-base's; the default of this class is another
            projection_dim=EMBED_DIM,
            projection_hidden_act="relu",
        )
    ).eval()
    names = {
        "encoder.": "text_model.",
        "projection.0.": "text_projection.linear1.",
        "projection.2.": "text_projection.linear2.",
    }
    state = {
        new + name.removeprefix(old): tensor
        for name, tensor in ours.state_dict().items()
        for old, new in names.items()
        if name.startswith(old)
    }
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith(("position_ids", "token_type_ids")) for name in missing)
    ids = torch.tensor(IDS)
    padded = F.pad(ids, (0, 77 - ids.shape[1]), value=1)
    with torch.inference_mode():
        expected = reference(padded, (padded != 1).long()).text_embeds
        assert relative_error(F.normalize(ours(ids)), F.normalize(expected)) < 1e-5
        assert relative_error(ours(ids)[1:], ours(ids[1:, :4])) < 1e-5  # padding does not matter


def test_microsoft_takes_the_state_of_the_end_mark() -> None:
    from transformers import GPT2Config, GPT2Model

    ours = shaken(MicrosoftText(TINY_TEXT, EMBED_DIM))
    reference = GPT2Model(
        GPT2Config(
            vocab_size=TINY_TEXT.vocabulary_size,
            n_positions=TINY_TEXT.positions,
            n_embd=TINY_TEXT.dim,
            n_layer=TINY_TEXT.layers,
            n_head=TINY_TEXT.heads,
            attn_implementation="eager",
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    state = ours.state_dict()
    prefix = "encoder."
    base = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    reference.load_state_dict(base)
    phrases = [[9, 30, 47, 200, 220, 256], [51, 7, 220, 256]]
    expected = []
    with torch.inference_mode():
        for phrase in phrases:  # one by one, without padding
            last = reference(torch.tensor([phrase])).last_hidden_state[:, -1]
            first = last @ state["projection.linear1.weight"].T
            second = F.gelu(first) @ state["projection.linear2.weight"].T
            norm = (state[f"projection.layer_norm.{name}"] for name in ("weight", "bias"))
            expected.append(F.layer_norm(first + second, (EMBED_DIM,), *norm))
        found = ours(torch.tensor([phrases[0], [*phrases[1], 0, 0]]))
    assert relative_error(found, torch.cat(expected)) < 1e-5


def test_the_published_encoders_have_the_published_sizes() -> None:
    roberta = TextConfig(vocabulary_size=50_265, positions=514, dim=768, layers=12, heads=12)
    gpt2 = TextConfig(vocabulary_size=50_257, positions=1024, dim=768, layers=12, heads=12)
    with torch.device("meta"):
        encoders = LaionText(roberta, 512).encoder, MicrosoftText(gpt2, 1024).encoder
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in encoders]
    assert sizes == [124_645_632, 124_439_808]
