"""Saving and loading networks: round trip, strictness, and parts from several files."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.checkpoint import (
    MODEL_PARTS,
    load_network,
    save_network,
    write_tensors,
)
from av2tsam_cli.hub.tensor_file import FORMAT, TensorFile, read_metadata
from av2tsam_cli.model.av2tsam import Av2tSam, build

from ..tiny import TINY


def test_loading_restores_a_saved_network(tiny_network: Av2tSam, tmp_path: Path) -> None:
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


def test_a_tensor_of_another_type_is_an_error(tiny_network: Av2tSam, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path)
    state, metadata = load_file(path), read_metadata(path)
    name = "text_sam.mask_decoder.mask_tokens.weight"
    save_file({**state, name: state[name].to(torch.complex64)}, path, metadata)
    with pytest.raises(WeightsError, match=f"{name} has the type C64"):
        load_network(path)


def test_audio_front_end_stays_in_float32(tiny_network: Av2tSam, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path, dtype=torch.float16)
    for dtype in (None, torch.bfloat16):
        loaded = load_network(path, dtype=dtype)
        assert loaded.projector.audio_proj.weight.dtype == dtype or torch.float16
        assert loaded.clap.htsat.logmel_extractor.melW.dtype == torch.float32
        assert loaded.clap.htsat.bn0.running_var.dtype == torch.float32
    stored = load_file(path)
    assert stored["projector.audio_proj.weight"].dtype == torch.float16


def test_changing_a_loaded_network_leaves_the_file_unchanged(
    tiny_network: Av2tSam, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path)
    before = path.read_bytes()
    with torch.no_grad():
        for parameter in load_network(path).parameters():
            parameter.add_(1.0)
    assert path.read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loaded_weights_are_aligned_and_not_memory_mapped(
    tiny_network: Av2tSam, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path)
    for name, tensor in load_network(path).state_dict().items():
        assert tensor.data_ptr() % 64 == 0, name
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_header_lists_types_and_shapes(tiny_network: Av2tSam, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(tiny_network, path, dtype=torch.float16)
    tensors = TensorFile(path).tensors
    expected = tiny_network.state_dict()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }
    assert tensors["projector.audio_proj.weight"].dtype == "F16"
    assert {name.partition(".")[0] for name in tensors} == set(MODEL_PARTS)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of installed models."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("AV2TSAM_HOME", str(folder))
    return folder


def split(model: Av2tSam, folder: Path) -> None:
    """Write the frozen parts to files of their own, as conversion does."""
    state = model.state_dict()
    for name, part in (
        ("clip-vit-b-32", "clip."),
        ("clap-laion", "clap."),
        (f"{model.config.name}-text", "text_sam."),
    ):
        tensors = {key: tensor for key, tensor in state.items() if key.startswith(part)}
        write_tensors(tensors, folder / f"{name}.safetensors", model.config)


def test_trained_checkpoint_loads_frozen_parts_from_their_files(
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


def test_missing_part_is_named_in_the_error(
    tiny_network: Av2tSam, tmp_path: Path, home: Path
) -> None:
    path = tmp_path / "trained.safetensors"
    save_network(tiny_network, path, trained_only=True)
    with pytest.raises(WeightsError, match=r"contains no clip, and clip-vit-b-32\.safetensors"):
        load_network(path)


def test_part_of_another_size_is_rejected(
    tiny_network: Av2tSam, tmp_path: Path, home: Path
) -> None:
    clip = dataclasses.replace(tiny_network.config.clip, width=24)
    other = build(dataclasses.replace(tiny_network.config, clip=clip))
    split(other, home)
    path = tmp_path / "trained.safetensors"
    save_network(tiny_network, path, trained_only=True)
    with pytest.raises(WeightsError, match="another size"):
        load_network(path)


def test_unused_parts_may_be_missing(tiny_network: Av2tSam, tmp_path: Path, home: Path) -> None:
    split(tiny_network, tmp_path)
    path = tmp_path / f"{tiny_network.config.name}-text.safetensors"
    loaded = load_network(path, parts=("text_sam",))
    assert next(loaded.clip.parameters()).is_meta
    images = torch.zeros(1, 3, loaded.config.sam.image_size, loaded.config.sam.image_size)
    with torch.inference_mode():
        assert loaded.text_sam.encode_image(images).embedding.isfinite().all()


@pytest.mark.parametrize("damage", ["missing", "unexpected", "shape"])
def test_file_inconsistent_with_its_configuration_is_rejected(
    tiny_network: Av2tSam, tmp_path: Path, home: Path, damage: str
) -> None:
    path = tmp_path / "model.safetensors"
    state = dict(tiny_network.state_dict())
    name = "projector.audio_proj.bias"
    if damage == "missing":
        del state[name]
    elif damage == "unexpected":
        name = "projector.unexpected"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(99)
    write_tensors(state, path, tiny_network.config)
    with pytest.raises(WeightsError, match=rf"{path.name}: .*{name}"):
        load_network(path)


@pytest.mark.parametrize("content", [None, b"", b"not weights", bytes(64)])
def test_missing_or_corrupted_file_is_rejected(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        load_network(path)


def test_truncated_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_network(build(TINY), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="truncated"):
        load_network(path)


def test_file_of_another_program_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="models convert"):
        load_network(path)
    save_file({"weight": torch.zeros(1)}, path, metadata={"format": FORMAT, "config": "{}"})
    with pytest.raises(WeightsError, match="configuration"):
        load_network(path)


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "model.safetensors"
    with pytest.raises(WeightsError, match="cannot be written"):
        save_network(build(TINY), path)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
