"""Networks in files: the same after loading, strict, and put together from several."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.checkpoint import (
    FORMAT,
    load_network,
    read_metadata,
    save_network,
    write_tensors,
)
from av2tsam_cli.model.av2tsam import Av2tSam, build

from ..tiny import TINY


def test_a_network_is_the_same_after_loading(tiny_network: Av2tSam, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path, {"epochs": 3, "data": {"set": "s4"}})
    loaded = load_network(path)
    assert loaded.config == tiny_network.config
    assert not loaded.training
    assert not any(p.is_meta for p in (*loaded.parameters(), *loaded.buffers()))
    for name, tensor in tiny_network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert read_metadata(path)["epochs"] == "3"
    assert list(tmp_path.iterdir()) == [path]


def test_the_sounds_front_end_stays_in_float32(tiny_network: Av2tSam, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path, dtype=torch.float16)
    for dtype in (None, torch.bfloat16):
        loaded = load_network(path, dtype=dtype)
        assert loaded.projector.audio_proj.weight.dtype == dtype or torch.float16
        assert loaded.clap.htsat.logmel_extractor.melW.dtype == torch.float32
        assert loaded.clap.htsat.bn0.running_var.dtype == torch.float32
    stored = load_file(path)
    assert stored["projector.audio_proj.weight"].dtype == torch.float16


def test_loading_does_not_change_the_file(tiny_network: Av2tSam, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path)
    before = path.read_bytes()
    with torch.no_grad():
        for parameter in load_network(path).parameters():
            parameter.add_(1.0)
    assert path.read_bytes() == before


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of installed models."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("AV2TSAM_HOME", str(folder))
    return folder


def split(model: Av2tSam, folder: Path) -> None:
    """The frozen parts in files of their own, as conversion makes them."""
    state = model.state_dict()
    for name, part in (
        ("clip-vit-b-32", "clip."),
        ("clap-laion", "clap."),
        (f"{model.config.name}-text", "text_sam."),
    ):
        tensors = {key: tensor for key, tensor in state.items() if key.startswith(part)}
        write_tensors(tensors, folder / f"{name}.safetensors", model.config)


def test_a_trained_checkpoint_finds_the_frozen_parts(
    tiny_network: Av2tSam, tmp_path: Path, home: Path
) -> None:
    split(tiny_network, home)
    with torch.no_grad():
        for _, parameter in tiny_network.trained_parameters():
            parameter.mul_(2.0)
    path = tmp_path / "trained.safetensors"
    save_network(tiny_network, path, trained_only=True)
    assert not any("image_encoder" in name for name in load_file(path))
    loaded = load_network(path)
    for name, tensor in tiny_network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_part_that_is_nowhere_is_named(tiny_network: Av2tSam, tmp_path: Path, home: Path) -> None:
    path = tmp_path / "trained.safetensors"
    save_network(tiny_network, path, trained_only=True)
    with pytest.raises(WeightsError, match=r"no clip, and clip-vit-b-32\.safetensors"):
        load_network(path)


def test_a_part_of_another_size_is_refused(
    tiny_network: Av2tSam, tmp_path: Path, home: Path
) -> None:
    clip = dataclasses.replace(tiny_network.config.clip, width=24)
    other = build(dataclasses.replace(tiny_network.config, clip=clip))
    split(other, home)
    path = tmp_path / "trained.safetensors"
    save_network(tiny_network, path, trained_only=True)
    with pytest.raises(WeightsError, match="another size"):
        load_network(path)


def test_parts_that_will_not_be_used_need_not_be_there(
    tiny_network: Av2tSam, tmp_path: Path, home: Path
) -> None:
    split(tiny_network, tmp_path)
    path = tmp_path / f"{tiny_network.config.name}-text.safetensors"
    loaded = load_network(path, parts=("text_sam",))
    assert next(loaded.clip.parameters()).is_meta
    images = torch.zeros(1, 3, loaded.config.sam.image_size, loaded.config.sam.image_size)
    with torch.inference_mode():
        assert loaded.text_sam.encode_image(images).embedding.isfinite().all()


@pytest.mark.parametrize("damage", ["missing", "stranger", "shape"])
def test_a_file_that_does_not_fit_its_configuration(
    tiny_network: Av2tSam, tmp_path: Path, home: Path, damage: str
) -> None:
    path = tmp_path / "model.safetensors"
    state = dict(tiny_network.state_dict())
    name = "projector.audio_proj.bias"
    if damage == "missing":
        del state[name]
    elif damage == "stranger":
        name = "projector.unheard_of"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(99)
    write_tensors(state, path, tiny_network.config)
    with pytest.raises(WeightsError, match=r"audio_proj|unheard_of|projector"):
        load_network(path)


@pytest.mark.parametrize("content", [None, b"", b"rubbish", bytes(64)])
def test_a_missing_or_damaged_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_network(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(build(TINY), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_network(path)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="models convert"):
        load_network(path)
    save_file({"weight": torch.zeros(1)}, path, metadata={"format": FORMAT, "config": "{}"})
    with pytest.raises(WeightsError, match="configuration"):
        load_network(path)


def test_a_place_that_cannot_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "model.safetensors"
    with pytest.raises(WeightsError, match="cannot be written"):
        save_network(build(TINY), path)
    assert not list(tmp_path.iterdir())
