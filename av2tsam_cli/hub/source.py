"""Read published checkpoints: safetensors files or pickles, whole or in shards."""

import codecs
import json
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.tensor_file import TensorFile

# Names of the weights in a folder from the Hugging Face hub, in order of preference.
FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)

# What a pickle may refer to besides tensors. LAION stored an epoch number and a score as NumPy
# scalars beside the weights; these functions and types only create numbers.
_SCALAR: Any = np.float64(0).__reduce__()[0]
ALLOWED_GLOBALS: tuple[Any, ...] = (
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name in NumPy 1
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    (codecs.encode, "_codecs.encode"),
)

REFUSED_GLOBALS = frozenset({"builtins bytearray", "__builtin__ bytearray"})
"""What torch allows but weights do not need: such a call fills the memory with as many zeros as a
file of a few bytes asks for."""

LEGACY_PICKLES = 4
"""Pickles at the start of a file in torch's format before zip archives; the last has the weights.
After it come the tensors' own bytes."""

# Keys under which training scripts store the weights among other values.
WRAPPERS = ("state_dict", "model", "module")


def read_state(source: Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint by name, memory-mapped if the format allows it.

    Args:
        source: A `.safetensors`, `.bin`, `.pt` or `.pth` file, an index of shards, or a folder
            from the Hugging Face hub that contains one of these.

    Raises:
        WeightsError: It is missing, incomplete or corrupted, or loading it would run code.
    """
    if source.is_dir():
        source = _weights_in(source)
    if not source.is_file():
        raise WeightsError(f"{source}: file not found; check the path")
    if source.name.endswith(".index.json"):
        return _read_shards(source)
    if source.suffix == ".safetensors":
        return TensorFile(source).read()
    return _unwrap(source, _read_pickle(source))


def _weights_in(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"{folder}: contains none of {', '.join(FOLDER_FILES)}; pass the weights file itself"
    )


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        shard_of: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        shards = sorted(set(shard_of.values()))
        others = [shard for shard in shards if not _is_shard(shard)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{index}: not an index of weights in shards ({error!r}); download it again"
        ) from error
    if others:
        raise WeightsError(
            f"{index}: {some(map(repr, others))} is no file of weights beside it; download it again"
        )
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise WeightsError(
            f"{index.parent}: shards are missing: {', '.join(missing)}; download them too"
        )
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= read_state(index.parent / shard)
    absent = sorted(shard_of.keys() - state.keys())
    if absent:
        raise WeightsError(
            f"{index}: no shard contains the tensors {some(absent)}; download the shards again"
        )
    return state


def _is_shard(name: str) -> bool:
    """Return whether a name in an index is that of a file beside it, and no index itself."""
    return name == Path(name).name and "\0" not in name and not name.endswith(".json")


def _read_pickle(path: Path) -> object:
    """Unpickle with only the allowed globals, memory-mapped if the file is a zip archive."""
    try:
        is_archive = zipfile.is_zipfile(path)
        (_check_archive if is_archive else _check_legacy)(path)
        with (
            torch.serialization.safe_globals(list(ALLOWED_GLOBALS)),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # about kinds of tensors that are rejected below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|Unsupported \w+:?) ([\w.]+\.[\w.]+)", str(error))
        if refused is not None:
            raise _refused(path, refused[1]) from error
        raise _corrupted(path) from error
    # torch.load raises any of these when the content is not what it expects.
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        ArithmeticError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise _corrupted(path) from error


def _check_archive(path: Path) -> None:
    """Check that an archive contains no more than its size, as torch does not compress."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise _corrupted(path)
        for entry in entries:
            if entry.filename.endswith("/data.pkl"):
                with archive.open(entry) as file:
                    _check_calls(path, file)


def _check_legacy(path: Path) -> None:
    with path.open("rb") as file:
        for _ in range(LEGACY_PICKLES):
            _check_calls(path, file)


def _check_calls(path: Path, file: IO[bytes]) -> None:
    """Check that a pickle calls nothing that torch allows and weights do not need."""
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL" and argument in REFUSED_GLOBALS:
            raise _refused(path, str(argument).replace(" ", "."))


def _refused(path: Path, function: str) -> WeightsError:
    return WeightsError(
        f"{path}: refused, because loading it would run {function}, which weights do not need; do "
        "not trust this file"
    )


def _corrupted(path: Path) -> WeightsError:
    return WeightsError(
        f"{path}: corrupted, truncated or not a checkpoint with weights; download it again"
    )


def _unwrap(path: Path, loaded: object) -> dict[str, Tensor]:
    """Return the unpickled mapping from names to tensors, without a common prefix `module.`."""
    for _ in WRAPPERS:  # a mapping may also contain itself
        if isinstance(loaded, Mapping):
            loaded = next(
                (loaded[w] for w in WRAPPERS if isinstance(loaded.get(w), Mapping)), loaded
            )
    if not isinstance(loaded, Mapping) or not loaded:
        raise WeightsError(f"{path}: contains no weights; pass a checkpoint")
    if not all(isinstance(name, str) for name in loaded):
        raise WeightsError(f"{path}: contains tensors without a name; pass a checkpoint")
    others = [name for name, value in loaded.items() if not _is_dense(value)]
    if others:
        raise WeightsError(
            f"{path}: contains values that are not tensors: {some(others)}; pass a checkpoint that "
            "contains only weights"
        )
    prefix = "module." if all(name.startswith("module.") for name in loaded) else ""
    return {name.removeprefix(prefix): value for name, value in loaded.items()}


def _is_dense(value: object) -> bool:
    """Return whether a value is a dense tensor in memory; torch also allows other kinds."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def some(names: Iterable[str], limit: int = 3) -> str:
    """Return the first few names, for an error message."""
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
