"""All implementations of attention agree."""

import pytest
import torch
import torch.nn.functional as F

from av2tsam_cli.model.blocks import attend, attend_in_chunks

pytestmark = pytest.mark.cpu


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)))


@pytest.mark.parametrize("chunk_logits", [7, 40, 300, 1 << 21])
def test_chunked_attention_in_bfloat16_for_any_chunk_size(chunk_logits: int) -> None:
    q, k, v = tokens(2, 3, 8, 16), tokens(2, 3, 11, 16), tokens(2, 3, 11, 5)
    expected = (q @ k.transpose(-1, -2) / 16**0.5).softmax(dim=-1) @ v
    with torch.inference_mode():
        bf16 = (part.bfloat16() for part in (q, k, v))
        attended = attend_in_chunks(*bf16, chunk_logits=chunk_logits)
    torch.testing.assert_close(attended.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_on_this_cpu(dtype: torch.dtype) -> None:
    q, k, v = tokens(2, 3, 8, 16), tokens(2, 3, 11, 16), tokens(2, 3, 11, 5)
    expected = (q @ k.transpose(-1, -2) / 16**0.5).softmax(dim=-1) @ v
    with torch.inference_mode():
        attended = attend(*(part.to(dtype) for part in (q, k, v)))
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(attended.float(), expected, atol=tolerance, rtol=tolerance)


def test_values_narrower_than_keys_and_a_given_scale() -> None:
    q, k, v = tokens(1, 2, 8, 16), tokens(1, 2, 8, 16), tokens(1, 2, 8, 4)
    expected = (0.5 * q @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    torch.testing.assert_close(attend(q, k, v, scale=0.5), expected)


def test_masked_keys_are_ignored() -> None:
    q, k, v = tokens(1, 2, 4, 8), tokens(1, 2, 4, 8), tokens(1, 2, 4, 8)
    visible = torch.tensor([True, True, False, True])[None, None, None]
    kept = [0, 1, 3]
    expected = F.scaled_dot_product_attention(q, k[:, :, kept], v[:, :, kept])
    torch.testing.assert_close(attend(q, k, v, visible=visible), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_on_this_cpu(dtype: torch.dtype) -> None:
    expected = [tokens(2, 3, n, 16).requires_grad_() for n in (8, 11, 11)]
    (F.scaled_dot_product_attention(*expected) ** 2).sum().backward()
    given = [part.detach().to(dtype).requires_grad_() for part in expected]
    (attend(*given).float() ** 2).sum().backward()
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5
    for ours, theirs in zip(given, expected, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.float(), theirs.grad, atol=tolerance, rtol=tolerance)
