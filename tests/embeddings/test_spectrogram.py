"""The spectrogram equals torchlibrosa's."""

import importlib
import warnings

import librosa
import pytest
import torch

from av2tsam_cli.embeddings.spectrogram import LogMel, PowerSpectrogram, correlate, mel_filters

SIZES = [(48_000, 1024, 480, 14_000), (32_000, 1024, 320, 14_000), (16_000, 512, 252, 8_000)]


@pytest.mark.parametrize(("rate_hz", "n_fft", "hop", "fmax_hz"), SIZES)
def test_the_spectrogram_equals_torchlibrosas(
    rate_hz: int, n_fft: int, hop: int, fmax_hz: int
) -> None:
    stft = importlib.import_module("torchlibrosa.stft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stft.Spectrogram(n_fft=n_fft, hop_length=hop, win_length=n_fft)
        their_mel = stft.LogmelFilterBank(
            sr=rate_hz, n_fft=n_fft, n_mels=64, fmin=50, fmax=fmax_hz, top_db=None
        )
    ours, our_mel = PowerSpectrogram(n_fft, hop), LogMel(rate_hz, n_fft, 64, 50, fmax_hz)
    samples = torch.randn(2, rate_hz // 4, generator=torch.Generator().manual_seed(0)) * 0.1
    power = theirs(samples)
    torch.testing.assert_close(ours(samples), power, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_mel(power), their_mel(power), rtol=1e-4, atol=1e-4)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert our_mel.state_dict().keys() == their_mel.state_dict().keys()
    assert not any(p.requires_grad for p in (*ours.parameters(), *our_mel.parameters()))


def test_the_mel_filters_equal_librosas() -> None:
    expected = librosa.filters.mel(sr=16_000, n_fft=512, n_mels=40, fmin=0, fmax=8_000)
    ours = mel_filters(16_000, 512, 40, 0, 8_000)
    torch.testing.assert_close(ours, torch.from_numpy(expected).T.contiguous())


def test_the_products_used_on_gpus_equal_the_convolution() -> None:
    samples, kernels = torch.randn(2, 1, 400), torch.randn(9, 1, 16)
    expected = torch.nn.functional.conv1d(samples, kernels, stride=10)
    torch.testing.assert_close(correlate(samples, kernels, 10), expected, rtol=1e-5, atol=1e-4)
