"""The reference's audio preprocessing for CLAP."""

import math

import torch

from av2tsam_cli.embeddings.segments import reference_segments, sinc_resample


def test_a_stereo_second_becomes_left_then_right() -> None:
    left, right = torch.full((1, 20), 0.25), torch.full((1, 20), -0.5)
    segments = reference_segments(torch.cat([left, right]), 10, to_hz=10, seconds=2)
    assert segments.shape == (2, 20)
    assert torch.equal(segments[1], torch.cat([left[0, :10], right[0, :10]]))


def test_a_short_clip_is_padded_with_silence() -> None:
    segments = reference_segments(torch.ones(1, 15), 10, to_hz=10, seconds=3)
    assert torch.equal(segments.sum(dim=1), torch.tensor([10.0, 5.0, 0.0]))


def test_a_longer_clip_is_cut() -> None:
    assert reference_segments(torch.ones(1, 99), 10, to_hz=10, seconds=5).shape == (5, 10)


def test_resampling_preserves_a_tone() -> None:
    def tone(rate_hz: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 440 * torch.arange(rate_hz) / rate_hz)[None]

    resampled = sinc_resample(tone(16_000), 16_000, 44_100)
    assert resampled.shape == (1, 44_100)
    inside = slice(500, -500)  # near the ends, the filter includes zeros
    torch.testing.assert_close(resampled[:, inside], tone(44_100)[:, inside], atol=2e-3, rtol=0)


def test_resampling_to_the_same_rate_changes_nothing() -> None:
    samples = torch.randn(2, 100, generator=torch.Generator().manual_seed(0))
    assert sinc_resample(samples, 8_000, 8_000) is samples
