"""HTSAT's front end: power spectrogram and log-mel filters, with torchlibrosa's key names.

torchlibrosa's own classes give the same numbers, but they import librosa, scipy and numba, which
takes seconds, only to compute filters that a checkpoint overwrites.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Smallest power: -100 dB.
FLOOR = 1e-10

# Slaney's mel scale: linear below a kilohertz, logarithmic above.
LINEAR_HZ = 200.0 / 3.0
KNEE_HZ = 1000.0
KNEE_MEL = KNEE_HZ / LINEAR_HZ
LOG_STEP = math.log(6.4) / 27.0


class Stft(nn.Module):
    """Short-time Fourier transform as two convolutions, whose kernels are in the checkpoint."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        bins = n_fft // 2 + 1
        self.conv_real = nn.Conv1d(1, bins, n_fft, stride=hop, bias=False)
        self.conv_imag = nn.Conv1d(1, bins, n_fft, stride=hop, bias=False)
        cosine, sine = fourier_kernels(n_fft)
        self.conv_real.weight = nn.Parameter(cosine, requires_grad=False)
        self.conv_imag.weight = nn.Parameter(sine, requires_grad=False)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Map samples (B, n) to real and imaginary parts, (B, bins, T) each."""
        padded = F.pad(samples[:, None], (self.n_fft // 2, self.n_fft // 2), mode="reflect")
        if padded.device.type != "cuda":
            return self.conv_real(padded), self.conv_imag(padded)
        real, imaginary = (
            correlate(padded, conv.weight, conv.stride[0])
            for conv in (self.conv_real, self.conv_imag)
        )
        return real, imaginary


def correlate(samples: Tensor, kernels: Tensor, hop: int) -> Tensor:
    """Compute `conv1d` as a matrix product.

    cuDNN's convolutions round to TF32 (10 bits) by default, which drowns quiet bands in the
    rounding error of loud ones; PyTorch's matrix products do not.

    Args:
        samples: (B, 1, n).
        kernels: (bins, 1, n_fft).
        hop: Samples between two products.

    Returns:
        (B, bins, T).
    """
    windows = samples[:, 0].unfold(-1, kernels.shape[-1], hop)  # (B, T, n_fft)
    return kernels[:, 0] @ windows.transpose(1, 2)


class PowerSpectrogram(nn.Module):
    """Power spectrogram, with torchlibrosa's arguments."""

    def __init__(self, n_fft: int, hop_length: int, **_: Any) -> None:
        super().__init__()
        self.stft = Stft(n_fft, hop_length)

    def forward(self, samples: Tensor) -> Tensor:
        """Map samples (B, n) to power (B, 1, T, bins)."""
        real, imaginary = self.stft(samples)
        power: Tensor = real.square() + imaginary.square()
        return power.transpose(1, 2).unsqueeze(1)


class LogMel(nn.Module):
    """Log-mel filter bank, with torchlibrosa's arguments."""

    def __init__(
        self, sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float, **_: Any
    ) -> None:
        super().__init__()
        self.melW = nn.Parameter(mel_filters(sr, n_fft, n_mels, fmin, fmax), requires_grad=False)

    def forward(self, power: Tensor) -> Tensor:
        """Map power (..., bins) to decibels (..., mel bins)."""
        mel: Tensor = power @ self.melW
        return 10.0 * torch.log10(mel.clamp(min=FLOOR))


def fourier_kernels(n_fft: int) -> tuple[Tensor, Tensor]:
    """Return Hann-windowed cosines and negative sines, (n_fft / 2 + 1, 1, n_fft) each."""
    time = torch.arange(n_fft, dtype=torch.float64)
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * time / n_fft)
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.int64)
    # Whole turns are removed in integer arithmetic, which is exact.
    turns = (bins[:, None] * torch.arange(n_fft)) % n_fft
    angle = 2 * math.pi * turns.double() / n_fft
    kernels = (torch.cos(angle) * window, -torch.sin(angle) * window)
    return kernels[0].float()[:, None], kernels[1].float()[:, None]


def mel_filters(rate_hz: int, n_fft: int, bins: int, fmin_hz: float, fmax_hz: float) -> Tensor:
    """Return Slaney's triangular filters of equal area, (n_fft / 2 + 1, bins), float32."""
    frequencies = torch.linspace(0, rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    mels = torch.linspace(_to_mel(fmin_hz), _to_mel(fmax_hz), bins + 2, dtype=torch.float64)
    corners = _to_hz(mels)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - low) / (centre - low)
    falling = (high - frequencies[:, None]) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2.0 / (high - low)).float()


def _to_mel(hz: float) -> float:
    if hz < KNEE_HZ:
        return hz / LINEAR_HZ
    return KNEE_MEL + math.log(hz / KNEE_HZ) / LOG_STEP


def _to_hz(mels: Tensor) -> Tensor:
    above = KNEE_HZ * torch.exp(LOG_STEP * (mels - KNEE_MEL))
    return torch.where(mels < KNEE_MEL, mels * LINEAR_HZ, above)
