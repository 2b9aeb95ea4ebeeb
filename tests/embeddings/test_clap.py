"""CLAP against the forward pass of laion_clap, and the preprocessing of both kinds of CLAP."""

import dataclasses

import pytest
import torch

from av2tsam_cli.embeddings.clap import ClapConfig, ClapEmbedder
from av2tsam_cli.model.config import LAION_CLAP, MICROSOFT_CLAP, NANO

TINY = ClapConfig(
    embed_dim=10,
    rate_hz=16_000,
    mel_rate_hz=16_000,
    n_fft=256,
    hop=250,
    mel_bins=16,
    fmax_hz=8_000,
    clip_samples=32_000,
    spec_size=64,
    dim=8,
    depths=(2, 2),
    heads=(1, 2),
    window_size=4,
    classes=5,
)
TINY_MICROSOFT = dataclasses.replace(TINY, kind="microsoft")


def windows(count: int, samples: int = 16_000) -> torch.Tensor:
    return torch.randn(count, samples, generator=torch.Generator().manual_seed(3)) * 0.2


def encoder(config: ClapConfig) -> ClapEmbedder:
    torch.manual_seed(0)
    return ClapEmbedder(config).eval()


@pytest.mark.parametrize("config", [TINY, TINY_MICROSOFT])
def test_embeddings_equal_laion_claps(config: ClapConfig) -> None:
    embedder = encoder(config)
    prepared = embedder.prepare(windows(2))
    with torch.inference_mode():
        expected = embedder.htsat({"waveform": prepared}, device="cpu")
        tokens = embedder.encode(embedder.image(embedder.logmel(prepared)))
        torch.testing.assert_close(tokens.mean(dim=1), expected["embedding"])
        torch.testing.assert_close(embedder.classify(tokens), expected["clipwise_output"])


def test_laion_repeats_a_short_window_and_pads_the_rest() -> None:
    embedder = encoder(dataclasses.replace(TINY, clip_samples=40_000))
    prepared = embedder.prepare(windows(1))
    assert prepared.shape == (1, 40_000)
    assert torch.equal(prepared[:, :16_000], prepared[:, 16_000:32_000])
    assert not prepared[:, 32_000:].any()


def test_laion_rounds_samples_to_16_bits_towards_zero() -> None:
    embedder = encoder(TINY)
    steps = embedder.prepare(torch.tensor([[2.0, -2.0, 1.9 / 32767, -1.9 / 32767]])) * 32767
    torch.testing.assert_close(steps[0, :4], torch.tensor([32767.0, -32767.0, 1.0, -1.0]))


def test_microsoft_does_not_change_the_window() -> None:
    samples = windows(1)
    assert torch.equal(encoder(TINY_MICROSOFT).prepare(samples), samples)


@pytest.mark.parametrize("config", [TINY, TINY_MICROSOFT, NANO.clap])
def test_silence_and_full_scale_audio_have_finite_embeddings(config: ClapConfig) -> None:
    samples = torch.stack([torch.zeros(config.rate_hz), torch.ones(config.rate_hz)])
    with torch.inference_mode():
        embeddings = encoder(config)(samples)
    assert embeddings.shape == (2, config.embed_dim)
    assert embeddings.isfinite().all()


def test_training_has_neither_dropout_nor_spec_augmentation() -> None:
    embedder = encoder(NANO.clap).train()
    embedder.htsat.bn0.eval()
    samples = windows(2)
    assert torch.equal(embedder(samples), embedder(samples))


def test_the_spectrogram_stays_in_float32_under_autocast() -> None:
    embedder = encoder(TINY)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        logmel = embedder.logmel(embedder.prepare(windows(1)))
        assert embedder.image(logmel).dtype == torch.float32
    assert logmel.dtype == torch.float32


def test_a_second_fills_the_image_of_nano_exactly() -> None:
    embedder = encoder(NANO.clap)
    logmel = embedder.logmel(embedder.prepare(windows(1)))
    assert logmel.shape == (1, 1, NANO.clap.spec_size, NANO.clap.mel_bins)


@pytest.mark.parametrize(("config", "millions"), [(LAION_CLAP, 30.65), (MICROSOFT_CLAP, 31.83)])
def test_the_published_encoders_have_the_published_sizes(
    config: ClapConfig, millions: float
) -> None:
    with torch.device("meta"):
        embedder = ClapEmbedder(config)
    constants = {id(p) for p in embedder.htsat.spectrogram_extractor.parameters()}
    size = sum(p.numel() for p in embedder.parameters() if id(p) not in constants)
    assert size / 1e6 == pytest.approx(millions, abs=0.01)
