"""What of a model is loaded for which use, and from which files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.checkpoint import load_network, write_tensors
from av2tsam_cli.hub.locate import Use
from av2tsam_cli.inference.loading import LoadedModel, default_use, load_model

from .. import real_set

NETWORK, LAION, MICROSOFT, CLIP = "evf-sam2-text", "clap-laion", "clap-microsoft", "clip-vit-b-32"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def load(home: Path) -> Callable[..., LoadedModel]:
    """Install models, then load the network."""

    def load(*names: str, use: Use | None = None) -> LoadedModel:
        real_set.install(home, NETWORK, *names)
        return load_model(NETWORK, use=use, device="cpu", precision="fp32")

    return load


def parts(model: LoadedModel) -> set[str]:
    """Return the parts of a network that have weights."""
    return {
        name
        for name, part in model.network.named_children()
        if not any(parameter.is_meta for parameter in part.parameters())
    }


def test_each_use_loads_only_what_it_needs(load: Callable[..., LoadedModel]) -> None:
    assert parts(load(LAION, CLIP, use="words")) == {"clip", "clap", "text_sam"}
    assert parts(load(LAION, CLIP, use="text")) == {"text_sam"}
    assert parts(load(LAION, use="sounds")) == {"clap"}
    nano = load_model("nano", device="cpu")
    assert nano.use == "trained"
    assert parts(nano) == {"clip", "clap", "projector", "adapter", "text_sam"}


def test_a_checkpoint_that_was_not_trained_with_audio_is_used_with_words(
    load: Callable[..., LoadedModel],
) -> None:
    model = load(LAION, CLIP)
    assert model.use == "words"
    assert model.network.config.clap == real_set.LAION
    windows = torch.zeros(1, real_set.LAION.rate_hz)
    sounds = model.network.embed_windows(windows)
    frames = model.network.embed_frames(torch.zeros(1, 3, 40, 60, dtype=torch.uint8))
    assert model.phrase_embedder("clap")(["a dog"]).shape == sounds.shape
    assert model.phrase_embedder("clip")(["a dog"]).shape == frames.shape


def test_naming_sounds_needs_only_clap(home: Path) -> None:
    assert load_model(use="sounds", device="cpu").name == "nano"
    for name, config in ((MICROSOFT, real_set.MICROSOFT), (LAION, real_set.LAION)):
        real_set.install(home, name)
        model = load_model(use="sounds", device="cpu")
        assert (model.name, model.network.config.clap, parts(model)) == (name, config, {"clap"})
        assert model.phrase_embedder("clap")(["a dog"]).shape == (1, config.embed_dim)


def test_microsofts_clap_is_used_if_laions_is_not_complete(
    load: Callable[..., LoadedModel], home: Path
) -> None:
    assert load(MICROSOFT, CLIP).network.config.clap == real_set.MICROSOFT
    assert load(LAION, MICROSOFT, CLIP).network.config.clap == real_set.LAION
    (home / "roberta-tokenizer.bpe").unlink()
    model = load_model(NETWORK, device="cpu")
    assert model.network.config.clap == real_set.MICROSOFT
    assert model.phrase_embedder("clap")(["a dog"]).shape == (1, real_set.MICROSOFT.embed_dim)


def test_files_beside_the_checkpoint_come_first(
    load: Callable[..., LoadedModel], home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    load(LAION, CLIP)
    folder = tmp_path_factory.mktemp("mine")
    clap = {name: tensor + 1 for name, tensor in real_set.weights(LAION).items()}
    write_tensors(real_set.weights(NETWORK), folder / "mine.safetensors", real_set.EVF_SAM2)
    write_tensors(clap, folder / f"{LAION}.safetensors", real_set.config(LAION))
    network = load_model(folder / "mine.safetensors", device="cpu", precision="fp32").network
    weight = network.clap.projection[0].weight
    assert torch.equal(weight, clap["clap.projection.0.weight"])


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ((LAION,), "'av2tsam models pull clip-vit-b-32'"),
        ((CLIP,), "'av2tsam models pull clap-laion'"),
        ((), "`text` to a phrase"),
    ],
)
def test_a_missing_model_is_named_with_the_command_that_installs_it(
    load: Callable[..., LoadedModel], present: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(WeightsError, match=missing) as caught:
        load(*present)
    assert "contains no weights for audio" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_tokenizer_is_named(load: Callable[..., LoadedModel], home: Path) -> None:
    load(LAION, CLIP)
    (home / "roberta-tokenizer.bpe").unlink()
    with pytest.raises(WeightsError, match="'av2tsam models pull roberta-tokenizer'"):
        load_model(NETWORK, use="words")


def test_a_clap_without_text_encoder_does_not_do(
    load: Callable[..., LoadedModel], home: Path
) -> None:
    load(LAION, CLIP)
    sounds = {n: t for n, t in real_set.weights(LAION).items() if n.startswith("clap.")}
    write_tensors(sounds, home / f"{LAION}.safetensors", real_set.config(LAION))
    with pytest.raises(WeightsError, match=r"no text encoder.*pull clap-laion --force"):
        load_model(NETWORK, use="words")


def test_a_small_model_names_sounds_by_its_table() -> None:
    nano = load_model("nano", use="words", device="cpu")
    name = nano.network.config.clap.names[0]
    for encoder in ("clap", "clip"):
        assert nano.phrase_embedder(encoder)([name]).shape == (1, 128)


def test_a_trained_checkpoint_is_used_as_trained(tiny_model: Path, home: Path) -> None:
    assert default_use(tiny_model) == "trained"
    with pytest.raises(WeightsError, match="contains no text encoder"):
        load_model(tiny_model, use="words")
    state = load_network(tiny_model).state_dict()
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("clap.")}
    config = load_network(tiny_model).config
    write_tensors(rest, home / "trained.safetensors", config)
    assert default_use(home / "trained.safetensors") == "trained"
    with pytest.raises(WeightsError, match=r"contains no clap.*models pull clap-laion"):
        load_model(home / "trained.safetensors")
