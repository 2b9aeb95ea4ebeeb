"""Reading other people's checkpoint files: safetensors or pickles, whole or in shards."""

import codecs
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from av2tsam_cli.errors import WeightsError

# Where a folder downloaded from the Hugging Face hub keeps its weights, best first.
HUB_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)

# LAION saved an epoch number and a score as numpy values beside the weights. These build numbers
# and do nothing else; whatever else a pickle asks for is refused.
_SCALAR: Any = np.float64(0).__reduce__()[0]
ALLOWED: tuple[Any, ...] = (
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    (codecs.encode, "_codecs.encode"),
)

# Names under which training scripts put the weights among other things.
WRAPPERS = ("state_dict", "model", "module")


def read_state(source: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name, memory-mapped where the format allows it.

    Args:
        source: A `.safetensors`, `.bin`, `.pt` or `.pth` file, an index of shards, or a folder
            from the Hugging Face hub that holds one of these.

    Raises:
        WeightsError: If it is missing, incomplete, damaged, or would run code.
    """
    if source.is_dir():
        source = _in_folder(source)
    if not source.is_file():
        raise WeightsError(f"{source}: there is no such file")
    if source.name.endswith(".index.json"):
        return _read_shards(source)
    if source.suffix == ".safetensors":
        return _read_safetensors(source)
    return _unwrap(source, _read_pickle(source))


def _in_folder(folder: Path) -> Path:
    for name in HUB_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder}: holds none of {', '.join(HUB_FILES)}")


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        shard_of: dict[str, str] = json.loads(index.read_text())["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{index}: not an index of shards ({error!r})") from error
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise WeightsError(f"{index.parent}: shards are missing: {', '.join(missing)}")
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= read_state(index.parent / shard)
    absent = sorted(shard_of.keys() - state.keys())
    if absent:
        raise WeightsError(f"{index}: tensors are in none of the shards: {', '.join(absent[:3])}")
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: damaged, or no safetensors file ({error})") from error


def _read_pickle(path: Path) -> object:
    """Unpickle with the minimal allow-list, memory-mapped where the file's format has it."""
    try:
        with torch.serialization.safe_globals(list(ALLOWED)):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|Unsupported \w+:?) ([\w.]+\.[\w.]+)", str(error))
        if wanted is None:
            raise WeightsError(f"{path}: damaged, or no checkpoint") from error
        raise WeightsError(
            f"{path}: refused, because loading it would run {wanted[1]}, which weights do not need"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise WeightsError(f"{path}: damaged, or no checkpoint of weights") from error
    except (TypeError, AttributeError, AssertionError) as error:
        raise WeightsError(f"{path}: damaged, or no checkpoint of weights") from error


def _unwrap(path: Path, loaded: object) -> dict[str, Tensor]:
    """The mapping of names to tensors inside what was pickled, without a common `module.`."""
    while isinstance(loaded, Mapping):
        inner = next((loaded[w] for w in WRAPPERS if isinstance(loaded.get(w), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: holds no weights")
    strangers = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError(f"{path}: holds what is no tensor: {', '.join(strangers[:3])}")
    prefix = "module." if all(str(name).startswith("module.") for name in loaded) else ""
    return {str(name).removeprefix(prefix): value for name, value in loaded.items()}
