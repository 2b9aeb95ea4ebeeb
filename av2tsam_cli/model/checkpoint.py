"""A network and its configuration in one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.model.av2tsam import Av2tSam, build
from av2tsam_cli.model.config import ModelConfig

FORMAT = "av2tsam-1"

# Always stored and run in float32: spectrogram filters and running statistics span too wide a range.
FLOAT32_ONLY = (
    "clap.htsat.spectrogram_extractor.",
    "clap.htsat.logmel_extractor.",
    "clap.htsat.bn0.",
)


def save_model(
    model: Av2tSam,
    path: Path,
    metadata: Mapping[str, object] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the whole network beside its place, then move it there.

    Args:
        model: The network.
        path: A `.safetensors` file; one that exists is replaced.
        metadata: What else to remember (training options, data, metrics), as JSON values.
        dtype: Floating tensors are stored in it; None keeps each as it is.
    """
    tensors = {
        name: storage_tensor(name, tensor, dtype) for name, tensor in model.state_dict().items()
    }
    header = {"format": FORMAT, "config": model.config.to_json()}
    header |= {key: json.dumps(value) for key, value in (metadata or {}).items()}
    partial = path.with_name(path.name + ".part")
    try:
        save_file(tensors, partial, metadata=header)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def storage_tensor(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor as it is stored: contiguous, on the CPU, floating ones in `dtype`."""
    tensor = tensor.detach().cpu()
    if dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(torch.float32 if name.startswith(FLOAT32_ONLY) else dtype)
    return tensor.contiguous()


def load_model(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> Av2tSam:
    """Rebuild a network from its file, in evaluation mode, without a second copy in memory.

    Args:
        path: A file that `save_model` or the conversion wrote.
        device: Where the weights go.
        dtype: Floating weights become it; None keeps the file's.

    Raises:
        WeightsError: If the file is missing, damaged, of another kind, or does not fit its own
            configuration.
    """
    config = ModelConfig.from_json(read_metadata(path)["config"])
    with torch.device("meta"):
        model = build(config)
    _fill(model, path, torch.device(device), dtype)
    return model.eval()


def read_metadata(path: Path) -> dict[str, str]:
    """The file's metadata, all of it text.

    Raises:
        WeightsError: If it is missing, damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error})") from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise WeightsError(
            f"{path}: not a checkpoint of this tool; `av2tsam models convert` makes one from the "
            "authors' files"
        )
    return metadata


def _fill(model: Av2tSam, path: Path, device: torch.device, dtype: torch.dtype | None) -> None:
    """Give the network the file's tensors, one at a time; every name and shape must fit."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    with safe_open(path, framework="pt", device=str(device)) as file:
        names = set(file.keys())
        check_keys(path, names, expected.keys())
        state = {}
        for name in sorted(names):
            tensor = file.get_tensor(name)
            if tensor.shape != expected[name]:
                raise WeightsError(
                    f"{path}: {name} is {list(tensor.shape)}, not {list(expected[name])}"
                )
            state[name] = _run_tensor(name, tensor, dtype)
    model.load_state_dict(state, strict=True, assign=True)


def _run_tensor(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor as the network runs it."""
    if not tensor.is_floating_point():
        return tensor
    if name.startswith(FLOAT32_ONLY):
        return tensor.float()
    return tensor if dtype is None else tensor.to(dtype)


def check_keys(path: Path, found: set[str], expected: "set[str] | object") -> None:
    """Refuse a file whose tensors are not exactly the network's.

    Raises:
        WeightsError: Naming up to three of the missing and of the superfluous ones.
    """
    wanted = set(expected)  # type: ignore[call-overload]
    problems = [
        f"{len(names)} tensors {what} ({', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''})"
        for what, names in (("missing", wanted - found), ("not expected", found - wanted))
        if names
    ]
    if problems:
        raise WeightsError(f"{path}: does not fit its configuration: {'; '.join(problems)}")
