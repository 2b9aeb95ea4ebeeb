"""BEiT-3 against a slow implementation that processes one token at a time."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from av2tsam_cli.model.beit3 import Beit3, EncoderLayer, Multiway
from av2tsam_cli.model.config import Beit3Config

from ..tiny import shake

SIZES = Beit3Config(
    image_size=32, dim=12, heads=3, ffn_dim=20, depth=2, vocabulary_size=9, text_positions=8
)
VISION = SIZES.vision_tokens


def network() -> Beit3:
    torch.manual_seed(0)
    beit3 = Beit3(SIZES).eval()
    shake(beit3)
    return beit3


def side(layer: Multiway, token: Tensor, place: int) -> Tensor:
    """Apply the branch for vision or text to one token."""
    result: Tensor = (layer.A if place < VISION else layer.B)(token)
    return result


def slow_layer(layer: EncoderLayer, tokens: list[Tensor], keys: list[int]) -> list[Tensor]:
    """Apply a layer, one token and head at a time."""
    attention = layer.self_attn
    width = SIZES.dim // SIZES.heads
    normed = [side(layer.self_attn_layer_norm, t, n) for n, t in enumerate(tokens)]
    q, k, v = (
        [torch.split(side(p, t, n), width) for n, t in enumerate(normed)]
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    result = []
    for n, token in enumerate(tokens):
        heads = []
        for h in range(SIZES.heads):
            scores = torch.stack([q[n][h] @ k[m][h] / math.sqrt(width) for m in keys])
            mixed = torch.stack([v[m][h] for m in keys]).T @ scores.softmax(dim=0)
            heads.append(mixed)
        attended = side(attention.inner_attn_ln, torch.cat(heads), n)
        token = token + side(attention.out_proj, attended, n)  # noqa: PLW2901 - the residual stream
        feed = layer.ffn.A if n < VISION else layer.ffn.B
        hidden = F.gelu(feed.fc1(side(layer.final_layer_norm, token, n)))  # type: ignore[operator]
        result.append(token + feed.fc2(feed.ffn_layernorm(hidden)))  # type: ignore[operator]
    return result


def slow(beit3: Beit3, image: Tensor, text: Tensor, real: int) -> Tensor:
    """Encode an image and a text, whose tokens after the first `real` are padding."""
    patches = beit3.vision_embed.proj(image[None])[0].flatten(1).T
    vision = [beit3.vision_embed.cls_token[0, 0], *patches]
    words = [word if n < real else torch.zeros(SIZES.dim) for n, word in enumerate(text)]
    tables = beit3.encoder.embed_positions
    tokens = [t + tables.A.weight[2 + n] for n, t in enumerate(vision)]
    # A padding token and its position are zero.
    tokens += [
        t + tables.B.weight[2 + n] if n < real else torch.zeros(SIZES.dim)
        for n, t in enumerate(words)
    ]
    keys = list(range(VISION + real))
    for layer in beit3.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        tokens = slow_layer(layer, tokens, keys)
    return torch.stack([side(beit3.encoder.layer_norm, t, n) for n, t in enumerate(tokens)])


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(2, 3, 32, 32, generator=generator), torch.tensor([[0, 5, 2], [0, 2, 1]])


def test_the_encoder_equals_the_slow_implementation() -> None:
    beit3 = network()
    images, ids = inputs()
    with torch.inference_mode():
        embedded = beit3.embed_text(ids)
        fast = beit3(images, embedded)
        for n in range(2):
            torch.testing.assert_close(
                fast[n], slow(beit3, images[n], embedded[n], real=3), rtol=1e-4, atol=1e-5
            )


def test_padding_is_ignored() -> None:
    beit3 = network()
    images, ids = inputs()
    with torch.inference_mode():
        embedded = beit3.embed_text(ids)
        padding = torch.tensor([[False, False, False], [False, False, True]])
        masked = beit3(images, embedded, padding)
        expected = slow(beit3, images[1], embedded[1], real=2)
        torch.testing.assert_close(masked[1], expected, rtol=1e-4, atol=1e-5)
        embedded[1, 2] = embedded[1, 2].flip(0)
        assert torch.equal(beit3(images, embedded, padding), masked)


def test_without_padding_every_token_has_an_effect() -> None:
    beit3 = network()
    images, ids = inputs()
    with torch.inference_mode():
        embedded = beit3.embed_text(ids)
        before = beit3(images, embedded)
        embedded[1, 2] = embedded[1, 2].flip(0)
        after = beit3(images, embedded)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1, 0], after[1, 0])
