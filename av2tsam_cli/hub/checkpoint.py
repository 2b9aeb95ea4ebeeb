"""Save a network, or some of its parts, with its configuration in one safetensors file; load it."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from av2tsam_cli.embeddings.clap_text import build_clap_text
from av2tsam_cli.embeddings.clip_text import ClipText
from av2tsam_cli.errors import WeightsError
from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.registry import MODELS
from av2tsam_cli.hub.tensor_file import FORMAT, TensorFile, read_metadata
from av2tsam_cli.model.av2tsam import Av2tSam, SkipRandomInit, build_empty
from av2tsam_cli.model.config import ModelConfig

MODEL_PARTS = ("clip", "clap", "projector", "adapter", "text_sam")
"""Parts of the network; the name of each tensor begins with its part."""

TextPart = Literal["clap_text", "clip_text"]
"""The text encoder that belongs to CLAP or CLIP."""

TEXT_PARTS: tuple[TextPart, ...] = ("clap_text", "clip_text")
"""Text encoders, in the files of CLAP and CLIP. They are not part of the network: see
`load_text_encoder`."""

MEMORY_PART = "memory"
"""SAM 2's weights for tracking in videos, kept in the file of `text_sam` and not used yet."""

BUILD_ERRORS = (
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    ArithmeticError,
    LookupError,
    AttributeError,
)
"""What the constructors of networks raise for sizes that do not fit together."""

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of floating-point tensors that networks run with, as safetensors abbreviates them."""

READ_AT_ONCE = 8
"""Tensors that are read through one memory mapping, which counts as the process's memory."""

# Always stored and run in float32: their range is too wide for 16 bits.
STORED_IN_FLOAT32 = (
    "clap.htsat.spectrogram_extractor.",
    "clap.htsat.logmel_extractor.",
    "clap.htsat.bn0.",
)
# Run in float32 even where the rest runs in 16 bits: they cause most of the error and take about
# a hundredth of the time.
RUN_IN_FLOAT32 = ("text_sam.mask_decoder.", "text_sam.prompt_encoder.")


def save_network(
    model: Av2tSam,
    path: Path,
    metadata: Mapping[str, object] | None = None,
    *,
    dtype: torch.dtype | None = None,
    trained_only: bool = False,
) -> None:
    """Write a network to one file.

    Args:
        model: The network.
        path: A `.safetensors` file; an existing one is replaced.
        metadata: Further JSON values to store: training options, data, metrics.
        dtype: Type in which floating-point tensors are stored; None keeps the type of each.
        trained_only: Store only what the paper trains. `load_network` then reads the rest from the
            public models' files (see `locate.part_file`).

    Raises:
        WeightsError: The file cannot be written; an existing one is left as it was.
    """
    state = model.state_dict()
    if trained_only:
        trained = {name for name, _ in model.trained_parameters()}
        state = {name: tensor for name, tensor in state.items() if name in trained}
    write_tensors(state, path, model.config, metadata, dtype=dtype)


def write_tensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    config: ModelConfig,
    metadata: Mapping[str, object] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write some of a network's tensors, by name, and its configuration to one file.

    Raises:
        WeightsError: The file cannot be written; an existing one is left as it was.
    """
    errors = write_errors(path, raises=WeightsError, catch=(SafetensorError,))
    with errors, atomic_file(path) as part:
        write_new_file(tensors, part, config, metadata, dtype=dtype)


def write_new_file(
    tensors: Mapping[str, Tensor],
    path: Path,
    config: ModelConfig,
    metadata: Mapping[str, object] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the file of `write_tensors` directly, for callers that write to a temporary path.

    Raises:
        OSError: The file cannot be written.
        SafetensorError: The file cannot be written.
    """
    stored = {name: _as_stored(name, tensor, dtype) for name, tensor in tensors.items()}
    header = {"format": FORMAT, "config": config.to_json()}
    header |= {key: json.dumps(value) for key, value in (metadata or {}).items()}
    path.touch()
    mode = path.stat().st_mode
    save_file(stored, path, metadata=header)
    path.chmod(mode)  # some versions of safetensors let only the owner read their files


def _as_stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a contiguous tensor on the CPU; floating-point ones are converted to `dtype`."""
    tensor = tensor.detach().cpu()
    if name.startswith(STORED_IN_FLOAT32) and tensor.is_floating_point():
        tensor = tensor.float()
    elif dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.contiguous()


def load_network(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    parts: Collection[str] = MODEL_PARTS,
    config: ModelConfig | None = None,
) -> Av2tSam:
    """Load a network in evaluation mode. At no time are there two copies of it in memory.

    Parts that the file does not contain are read from the files of the public models, beside the
    checkpoint or among the installed models.

    Args:
        path: A file written by `save_network` or by `av2tsam models convert`.
        device: Device for the weights.
        dtype: Type of the floating-point weights, except the mask decoder's, which are float32;
            None keeps the types of the file.
        parts: Parts to load; the others stay without weights and cannot be called.
        config: Sizes to use instead of those in the file, for one without CLAP or CLIP that is
            used with another than its own.

    Raises:
        WeightsError: The file is missing, corrupted, of another kind or inconsistent with its own
            configuration, or a part cannot be found.
    """
    config = config or read_config(path)
    model = _build(path, config)
    for part, module in model.named_children():
        if part not in parts:
            module.to("meta")
    state = model.state_dict()
    needed = {name for name in state if part_of(name) in parts}
    loaded = _read_tensors(path, state, needed, torch.device(device), dtype)
    for part, file in _part_files(path, config, needed - loaded.keys(), loaded).items():
        rest = {name for name in needed - loaded.keys() if part_of(name) == part}
        loaded |= _read_tensors(file, state, rest, torch.device(device), dtype)
    missing = needed - loaded.keys()
    if missing:
        raise WeightsError(
            f"{path}: {len(missing)} tensors of {', '.join(_parts_of(missing))} are missing "
            f"({', '.join(sorted(missing)[:3])}); download or convert the file again"
        )
    model.load_state_dict({**state, **loaded}, strict=True, assign=True)
    return model.eval()


def _build(path: Path, config: ModelConfig) -> Av2tSam:
    try:
        return build_empty(config)
    except BUILD_ERRORS as error:
        raise _no_network(path, error) from error


def _no_network(path: Path, error: Exception) -> WeightsError:
    reason = " ".join(str(error).split())[:200]
    return WeightsError(
        f"{path}: its configuration describes no network ({reason}); download or convert the file "
        "again"
    )


def _read_tensors(
    path: Path,
    state: Mapping[str, Tensor],
    needed: Collection[str],
    device: torch.device,
    dtype: torch.dtype | None,
    *,
    others: Collection[str] = (*TEXT_PARTS, MEMORY_PART),
) -> dict[str, Tensor]:
    """Read the needed tensors that a file contains, in the types that the network runs in.

    Args:
        path: The file.
        state: All tensors that the file may contain, except those of `others`.
        needed: Names of the tensors to read.
        device: Device for the tensors.
        dtype: See `load_network`.
        others: Parts in the file that do not matter here.
    """
    file = TensorFile(path)
    unexpected = [
        name for name in file.tensors if name not in state and part_of(name) not in others
    ]
    if unexpected:
        raise WeightsError(
            f"{path}: does not fit its own configuration: {len(unexpected)} tensors are not part "
            f"of the network ({', '.join(unexpected[:3])}); download or convert the file again"
        )
    names = [name for name in file.tensors if name in needed]
    for name in names:
        stored, expected = list(file.tensors[name].shape), list(state[name].shape)
        kind = file.tensors[name].dtype
        if (kind in FLOATS) != state[name].is_floating_point():
            raise WeightsError(
                f"{path}: {name} has the type {kind}; download or convert the file again"
            )
        if stored != expected:
            raise WeightsError(
                f"{path}: {name} has the shape {stored}, not {expected}; download or convert the "
                "file again"
            )
    tensors: dict[str, Tensor] = {}
    for start in range(0, len(names), READ_AT_ONCE):
        mapped = file.read(names[start : start + READ_AT_ONCE], str(device))
        tensors |= {name: _as_run(name, tensor, dtype) for name, tensor in mapped.items()}
    return tensors


def load_text_encoder(path: Path, part: TextPart, device: torch.device | str = "cpu") -> nn.Module:
    """Load the text encoder of CLAP or CLIP, in float32 and evaluation mode.

    Args:
        path: The file of CLAP or CLIP (see `locate.part_file`), or a checkpoint that contains it.
        part: Which text encoder.
        device: Device for the weights.

    Raises:
        WeightsError: The file is missing, corrupted, or has no text encoder.
    """
    config = read_text_config(path, part)
    try:
        encoder = build_empty_text(config, part)
    except BUILD_ERRORS as error:
        raise _no_network(path, error) from error
    prefix = f"{part}."
    state = encoder.state_dict(prefix=prefix)
    loaded = _read_tensors(
        path,
        state,
        state.keys(),
        torch.device(device),
        torch.float32,
        others={*MODEL_PARTS, *TEXT_PARTS, MEMORY_PART} - {part},
    )
    missing = sorted(state.keys() - loaded.keys())
    if missing:
        raise WeightsError(
            f"{path}: {len(missing)} tensors of {part} are missing ({', '.join(missing[:3])}); "
            "download or convert the file again"
        )
    weights = {name.removeprefix(prefix): tensor for name, tensor in loaded.items()}
    encoder.load_state_dict(weights, strict=True, assign=True)
    return encoder.to(device).requires_grad_(False).eval()


def read_config(path: Path) -> ModelConfig:
    """Return the configuration in a checkpoint.

    Raises:
        WeightsError: The file is missing, corrupted or of another kind.
    """
    try:
        return ModelConfig.from_json(read_metadata(path)["config"])
    except ValueError as error:
        raise WeightsError(
            f"{path}: this version does not support its configuration: {str(error)[:200]}"
        ) from error


def parts_in(path: Path) -> set[str]:
    """Return the parts that a checkpoint contains, text encoders included.

    Raises:
        WeightsError: The file is missing or corrupted.
    """
    return {part_of(name) for name in TensorFile(path).tensors}


def read_text_config(path: Path, part: TextPart) -> ModelConfig:
    """Return the configuration in a file of CLAP or CLIP with a text encoder.

    Raises:
        WeightsError: The file is missing, corrupted, or has no text encoder.
    """
    config = read_config(path)
    if part not in parts_in(path) or getattr(config, part.removesuffix("_text")).text is None:
        again = f", or run 'av2tsam models pull {path.stem} --force'"
        raise WeightsError(
            f"{path}: contains no text encoder; convert the published file again"
            f"{again if path.stem in MODELS else ''}"
        )
    return config


def build_empty_text(config: ModelConfig, part: TextPart) -> nn.Module:
    """Build a text encoder whose weights are not initialised; buffers are.

    Raises:
        ValueError: The configuration has no such text encoder.
    """
    with SkipRandomInit(everywhere=True):
        return build_clap_text(config.clap) if part == "clap_text" else ClipText(config.clip)


def _as_run(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a tensor in the type that it runs in, on the CPU always in memory of its own.

    Networks run slower on memory-mapped weights: these are not aligned, and their pages are small.
    """
    if not tensor.is_floating_point():
        wanted = tensor.dtype
    elif name.startswith(STORED_IN_FLOAT32) or (
        dtype is not None and name.startswith(RUN_IN_FLOAT32)
    ):
        wanted = torch.float32
    else:
        wanted = dtype or tensor.dtype
    return tensor.to(wanted, copy=tensor.device.type == "cpu")


def _part_files(
    path: Path, config: ModelConfig, missing: Collection[str], loaded: Collection[str]
) -> dict[str, Path]:
    """Find the files with the parts that a checkpoint does not contain, or only partly.

    Raises:
        WeightsError: A file cannot be found or is of another architecture.
    """
    parts = _parts_of(missing)
    if "projector" in parts and "projector" not in _parts_of(loaded):
        raise WeightsError(
            f"{path}: contains no weights for audio, only for text prompts; set `hear` to words or "
            "`text` to a phrase, or choose another model (see 'av2tsam models list')"
        )
    separate = [part for part in parts if part in locate.SEPARATE_PARTS]
    files = {part: locate.part_file(config, part, path) for part in separate}
    for part, file in files.items():
        if _sizes(read_config(file), part) != _sizes(config, part):
            raise WeightsError(
                f"{file}: its {part} has another size than {path} needs; use the file that the "
                "checkpoint was trained with"
            )
    return files


def _sizes(config: ModelConfig, part: str) -> object:
    """Return the configuration of a part that may be in a file of its own."""
    if part == "text_sam":
        return config.sam, config.beit3
    return replace(getattr(config, part), text=None)  # not needed to run the part


def part_of(name: str) -> str:
    """Return the part of the network that a tensor belongs to."""
    return name.partition(".")[0]


def _parts_of(names: Iterable[str]) -> list[str]:
    """Return the parts that tensors belong to, in the network's order."""
    found = {part_of(name) for name in names}
    return [part for part in MODEL_PARTS if part in found]
