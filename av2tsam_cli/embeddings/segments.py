"""The reference's audio preprocessing for CLAP, for exact comparison with the reference.

Everywhere else, windows are mono and come from the media readers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# torchaudio's default resampler: a Hann-windowed sinc.
ZERO_CROSSINGS = 6
ROLLOFF = 0.99


def reference_segments(samples: Tensor, rate_hz: int, *, to_hz: int, seconds: int = 5) -> Tensor:
    """Cut a clip into one-second segments as the reference does.

    Args:
        samples: (channels, n), float32, in [-1, 1].
        rate_hz: Sample rate of `samples`.
        to_hz: Sample rate of CLAP.
        seconds: Number of segments; the end is padded with zeros.

    Returns:
        (seconds, channels * to_hz). The channels of each second are concatenated, so a stereo
        second becomes two seconds of audio.
    """
    resampled = sinc_resample(samples, rate_hz, to_hz)[:, : seconds * to_hz]
    padded = F.pad(resampled, (0, seconds * to_hz - resampled.shape[1]))
    return padded.reshape(-1, seconds, to_hz).transpose(0, 1).flatten(1)


def sinc_resample(samples: Tensor, rate_hz: int, to_hz: int) -> Tensor:
    """Resample (channels, n) to (channels, ceil(n to_hz / rate_hz)) as torchaudio does."""
    divisor = math.gcd(rate_hz, to_hz)
    source, target = rate_hz // divisor, to_hz // divisor
    if source == target:
        return samples
    cutoff = min(source, target) * ROLLOFF
    width = math.ceil(ZERO_CROSSINGS * source / cutoff)
    kernels = _sinc_kernels(source, target, cutoff, width).to(samples)
    padded = F.pad(samples[:, None], (width, width + source))
    # One output channel per phase between two source samples.
    phases = F.conv1d(padded, kernels, stride=source)  # (channels, target, steps)
    length = math.ceil(target * samples.shape[1] / source)
    return phases.transpose(1, 2).flatten(1)[:, :length]


def _sinc_kernels(source: int, target: int, cutoff: float, width: int) -> Tensor:
    """Return the filters, (target, 1, taps), computed in float64."""
    taps = torch.arange(-width, width + source, dtype=torch.float64) / source
    phases = torch.arange(0, -target, -1, dtype=torch.float64)[:, None] / target
    position = ((phases + taps) * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(position * math.pi / ZERO_CROSSINGS / 2).square()
    return (torch.sinc(position) * window * cutoff / source)[:, None]
