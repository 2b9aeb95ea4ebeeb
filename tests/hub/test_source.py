"""Reading published files in all their forms, without running code that they contain."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.source import read_state

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2).half()}


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model": STATE},
        {"state_dict": {f"module.{k}": v for k, v in STATE.items()}},
        # As LAION saved it, with a NumPy scalar.
        {"epoch": 1, "best": np.float64(0.5), "state_dict": STATE},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_with_every_kind_of_wrapper(wrapped: Any, tmp_path: Path, *, zipped: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(wrapped, path, _use_new_zipfile_serialization=zipped)
    assert same(read_state(path))


def test_numpy_scalar_written_by_numpy_1(tmp_path: Path) -> None:
    path, old = tmp_path / "new.pt", tmp_path / "old.pt"
    torch.save({"best": np.float64(0.5), "state_dict": STATE}, path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core" in data
                data = data.replace(b"numpy._core.", b"numpy.core.")
            target.writestr(item.filename, data)
    assert same(read_state(old))


class Malicious:
    """Unpickling it would create a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_would_run_code_is_refused(tmp_path: Path, *, zipped: bool) -> None:
    path, trap = tmp_path / "weights.pth", tmp_path / "trap"
    torch.save(
        {"state_dict": STATE, "extra": Malicious(trap)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match=r"refused, because loading it would run \w+\.mkdir"):
        read_state(path)
    assert not trap.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_that_would_fill_the_memory_is_refused(tmp_path: Path, *, zipped: bool) -> None:
    # protocol 2: {"a": bytearray(2 ** 48)}
    size = b"\x8a\x07" + (2**48).to_bytes(7, "little")
    bomb = b"\x80\x02}U\x01ac__builtin__\nbytearray\n" + size + b"\x85Rs."
    path, magic = tmp_path / "weights.pt", tmp_path / "magic.pt"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", bomb)
            archive.writestr("archive/version", "3\n")
    else:
        torch.save(1, magic, _use_new_zipfile_serialization=False)
        content = magic.read_bytes()
        path.write_bytes(content[: content.rindex(b"\x80\x02K\x01.")] + bomb)
    with pytest.raises(WeightsError, match=r"refused, .* run __builtin__\.bytearray"):
        read_state(path)


def test_archive_that_is_larger_when_unpacked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(10_000_000))
        archive.writestr("archive/version", "3\n")
    with pytest.raises(WeightsError, match="corrupted"):
        read_state(path)


def test_mapping_that_contains_itself_is_no_checkpoint(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"a": torch.ones(1)}
    loop["model"] = loop
    torch.save(loop, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="not tensors"):
        read_state(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "value", [torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta")], ids=["sparse", "meta"]
)
def test_tensors_without_ordinary_memory_are_rejected(value: Any, tmp_path: Path) -> None:
    torch.save({"a": value}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"not tensors|corrupted"):
        read_state(tmp_path / "weights.pt")


@pytest.mark.parametrize(
    "shard", ["../secret.safetensors", "/etc/passwd", "a\0b", "model.safetensors.index.json", 5]
)
def test_index_cannot_name_files_elsewhere_or_itself(shard: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(STATE, tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": shard}}))
    with pytest.raises(WeightsError, match=r"no file of weights beside it|not an index"):
        read_state(folder)


def test_folder_of_shards(tmp_path: Path) -> None:
    names = {"a.weight": "model-1.safetensors", "b.bias": "model-2.safetensors"}
    for name, shard in names.items():
        save_file({name: STATE[name]}, tmp_path / shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert same(read_state(tmp_path))
    assert same(read_state(index))
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"shards are missing: model-2\.safetensors"):
        read_state(tmp_path)


def test_shard_without_its_tensor_is_rejected(tmp_path: Path) -> None:
    save_file({"a.weight": STATE["a.weight"]}, tmp_path / "only.safetensors")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(STATE, "only.safetensors")}))
    with pytest.raises(WeightsError, match=r"b\.bias"):
        read_state(index)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".index.json"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", bytes(200)])
def test_file_without_weights_is_rejected(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="weights"):
        read_state(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file_is_rejected(tmp_path: Path, suffix: str, *, zipped: bool) -> None:
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    else:
        save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(WeightsError, match="truncated"):
        read_state(path)


def test_values_that_are_not_tensors_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": [1, 2]}, path)
    with pytest.raises(WeightsError, match="not tensors"):
        read_state(path)


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="file not found"):
        read_state(tmp_path / "absent.pth")
    with pytest.raises(WeightsError, match=r"contains none of model\.safetensors"):
        read_state(tmp_path)
