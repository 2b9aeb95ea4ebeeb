"""CLAP's audio encoder: HTSAT from laion_clap, and the projection of LAION or Microsoft CLAP."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from av2tsam_cli.embeddings.borrowed import borrow
from av2tsam_cli.embeddings.names import NameTable
from av2tsam_cli.embeddings.stem import ConvStem
from av2tsam_cli.embeddings.text import TextConfig

INT16_PEAK = 32767.0


@dataclass(frozen=True)
class ClapConfig:
    """Sizes of an audio encoder. The defaults are LAION's 630k-audioset HTSAT-tiny."""

    kind: Literal["laion", "microsoft"] = "laion"
    """How a window is prepared and how the output of HTSAT is projected."""
    embed_dim: int = 512
    """Width of the embedding."""
    rate_hz: int = 48_000
    """Samples per second of the windows."""
    mel_rate_hz: int = 48_000
    """Sample rate that the mel filters are built for (32 kHz in Microsoft CLAP)."""
    n_fft: int = 1024
    """Samples per spectrogram window."""
    hop: int = 480
    """Samples between spectrogram windows."""
    mel_bins: int = 64
    """Mel filters."""
    fmin_hz: int = 50
    """Lowest frequency of the filters."""
    fmax_hz: int = 14_000
    """Highest frequency of the filters."""
    clip_samples: int = 480_000
    """LAION: shorter windows are repeated, then padded with zeros, to this many samples."""
    spec_size: int = 256
    """Side of the square image into which the spectrogram is folded."""
    patch_size: int = 4
    """Side of a patch of that image."""
    stem: Literal["patch", "conv"] = "patch"
    """`patch`: one strided convolution. `conv`: a residual stem, for training from scratch."""
    dim: int = 96
    """Width of the first stage; it doubles with each stage."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks per stage."""
    heads: tuple[int, ...] = (4, 8, 16, 32)
    """Attention heads per stage."""
    window_size: int = 8
    """Side of an attention window in patches."""
    classes: int = 527
    """Outputs of the AudioSet head."""
    names: tuple[str, ...] = field(default=(), repr=False)
    """Names with an embedding of their own, for a small model without a text encoder."""
    text: TextConfig | None = None
    """Sizes of the text encoder, RoBERTa (LAION) or GPT-2 (Microsoft); None if there is none. It is
    a module of its own (`clap_text`), which is loaded only where phrases are embedded."""

    @property
    def latent_dim(self) -> int:
        """Width of the last stage."""
        return self.dim << (len(self.depths) - 1)


class ClapEmbedder(nn.Module):
    """Embeds audio windows with CLAP. B = windows, T = spectrogram frames, M = mel bins."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.config = config
        # laion_clap's constructor reads values from tensors, which the meta device cannot do, and
        # calls meshgrid in a deprecated way.
        with _off_meta(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
            self.htsat = _htsat(config)
        self.projection = (
            laion_projection(config.latent_dim, config.embed_dim)
            if config.kind == "laion"
            else MicrosoftProjection(config.latent_dim, config.embed_dim)
        )
        self.names = NameTable(len(config.names), config.embed_dim) if config.names else None

    def forward(self, windows: Tensor) -> Tensor:
        """Embed audio windows.

        Args:
            windows: Mono samples in [-1, 1], float32, (B, rate_hz).

        Returns:
            (B, embed_dim), not normalised.
        """
        latent = self.encode(self.image(self.logmel(self.prepare(windows)))).mean(dim=1)
        embedding: Tensor = self.projection(latent)
        return embedding

    def prepare(self, windows: Tensor) -> Tensor:
        """Prepare samples as in the training of this CLAP: (B, rate_hz) to (B, n)."""
        if self.config.kind == "microsoft":
            return windows
        return _repeat_and_pad(_quantise(windows), self.config.clip_samples)

    def logmel(self, samples: Tensor) -> Tensor:
        """Return log-mel spectrograms (B, 1, T, M) in float32: 16 bits have too small a range."""
        with torch.autocast(samples.device.type, enabled=False):
            power = self.htsat.spectrogram_extractor(samples.float())  # (B, 1, T, n_fft / 2 + 1)
            logmel: Tensor = self.htsat.logmel_extractor(power)
        return logmel

    def normalise(self, logmel: Tensor) -> Tensor:
        """Apply HTSAT's BatchNorm over the mel bins to log-mel spectrograms (B, 1, T, M)."""
        with torch.autocast(logmel.device.type, enabled=False):
            normalised: Tensor = self.htsat.bn0(logmel.transpose(1, 3)).transpose(1, 3)
        return normalised

    def image(self, logmel: Tensor) -> Tensor:
        """Fold spectrograms into the square images of HTSAT, (B, 1, spec_size, spec_size).

        The time axis is stretched to `spec_size` times the number of chunks, then cut into chunks
        that are stacked along frequency.
        """
        image: Tensor = self.htsat.reshape_wav2img(self.normalise(logmel))
        return image

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B, 1, s, s) as tokens (B, tokens, latent_dim), after the last norm."""
        weight = next(self.htsat.patch_embed.parameters())
        tokens: Tensor = self.htsat.patch_embed(image.to(weight.dtype))
        for stage in self.htsat.layers:
            tokens = run_stage(stage, tokens)
        normalised: Tensor = self.htsat.norm(tokens)
        return normalised

    def classify(self, tokens: Tensor) -> Tensor:
        """Return probabilities (B, classes) of AudioSet's classes for the tokens of `encode`."""
        side = round(tokens.shape[1] ** 0.5)
        chunks = self.htsat.freq_ratio
        grid = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, chunks, side // chunks, side)
        # Undo the folding: the chunks are side by side in time again.
        unfolded = grid.transpose(2, 3).flatten(3)
        scores: Tensor = self.htsat.tscam_conv(unfolded)
        return scores.flatten(2).mean(dim=2).sigmoid()


def run_stage(stage: Any, tokens: Tensor) -> Tensor:
    """Run the blocks of an HTSAT stage and its patch merging on tokens (B, tokens, dim)."""
    for block in stage.blocks:
        tokens, _ = block(tokens)
    if stage.downsample is not None:
        tokens = stage.downsample(tokens)
    return tokens


class MicrosoftProjection(nn.Module):
    """The projection of Microsoft CLAP 2023: LayerNorm(a + W2 GELU(a)) with a = W1 latent."""

    def __init__(self, latent_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(latent_dim, embed_dim, bias=False)
        self.linear2 = nn.Linear(embed_dim, embed_dim, bias=False)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, latent: Tensor) -> Tensor:
        """Project latents (B, latent_dim) to embeddings (B, embed_dim)."""
        first = self.linear1(latent)
        embedding: Tensor = self.layer_norm(first + self.linear2(F.gelu(first)))
        return embedding


def laion_projection(latent_dim: int, embed_dim: int) -> nn.Module:
    """Return the projection of LAION CLAP, from latents (B, latent_dim) to (B, embed_dim)."""
    return nn.Sequential(
        nn.Linear(latent_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim)
    )


@contextmanager
def _off_meta() -> Iterator[None]:
    """Create tensors on the CPU if the default device is `meta`."""
    if torch.get_default_device().type != "meta":
        yield
        return
    with torch.device("cpu"):
        yield


def _htsat(config: ClapConfig) -> Any:
    """Create laion_clap's HTSAT without augmentation, dropout and its unused `head`."""
    htsat = borrow("laion_clap.clap_module.htsat").HTSAT_Swin_Transformer(
        spec_size=config.spec_size,
        patch_size=config.patch_size,
        patch_stride=(config.patch_size, config.patch_size),
        num_classes=config.classes,
        embed_dim=config.dim,
        depths=list(config.depths),
        num_heads=list(config.heads),
        window_size=config.window_size,
        drop_path_rate=0.0,
        config=SimpleNamespace(
            mel_bins=config.mel_bins,
            sample_rate=config.mel_rate_hz,
            window_size=config.n_fft,
            hop_size=config.hop,
            fmin=config.fmin_hz,
            fmax=config.fmax_hz,
        ),
    )
    del htsat.head
    if config.stem == "conv":
        htsat.patch_embed = SpectrogramStem(config)
    return htsat


class SpectrogramStem(nn.Module):
    """A residual stem in place of HTSAT's patch embedding. s = `spec_size`."""

    def __init__(self, config: ClapConfig) -> None:
        super().__init__()
        self.convs = ConvStem(channels=1, dim=config.dim, patch_size=config.patch_size)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, image: Tensor) -> Tensor:
        """Embed spectrogram images (B, 1, s, s) as tokens (B, (s / patch)^2, dim)."""
        tokens: Tensor = self.norm(self.convs(image).flatten(1, 2))
        return tokens


def _quantise(windows: Tensor) -> Tensor:
    """Round towards zero to 16-bit integers and back, as in LAION's training data."""
    return (windows.clamp(-1.0, 1.0) * INT16_PEAK).trunc() / INT16_PEAK


def _repeat_and_pad(windows: Tensor, samples: int) -> Tensor:
    """Repeat windows (B, n) as often as they fit entirely, then pad with zeros to (B, samples)."""
    repeated = windows.repeat(1, max(samples // windows.shape[1], 1))[:, :samples]
    return F.pad(repeated, (0, samples - repeated.shape[1]))
