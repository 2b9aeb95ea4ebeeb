"""A network, or some of its parts, and its configuration in one safetensors file."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub import locate
from av2tsam_cli.hub.header import FORMAT, read_metadata
from av2tsam_cli.model.av2tsam import Av2tSam, build_empty
from av2tsam_cli.model.config import ModelConfig

PARTS = ("clip", "clap", "projector", "adapter", "text_sam")
"""Parts of the network; each tensor's name begins with its part's."""

# Tensors that are read before the file is mapped into memory anew.
AT_A_TIME = 8

# Always stored and run in float32: these span too wide a range for 16 bits.
FLOAT32_ONLY = (
    "clap.htsat.spectrogram_extractor.",
    "clap.htsat.logmel_extractor.",
    "clap.htsat.bn0.",
)
# Run in float32 wherever the rest is in 16 bits: hundredths of the time, and most of the error.
FLOAT32_RUN = ("text_sam.mask_decoder.", "text_sam.prompt_encoder.")


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
        path: A `.safetensors` file; one that exists is replaced.
        metadata: What else to remember (training options, data, metrics), as JSON values.
        dtype: Floating tensors are stored in it; None keeps each as it is.
        trained_only: Leave out what the paper keeps frozen; `load_network` finds that in the public
            files, as `locate.companions` says.
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
    """Write tensors under our names beside the file's place, then move them there.

    Raises:
        WeightsError: If the file cannot be written; nothing is left behind.
    """
    stored = {name: _stored(name, tensor, dtype) for name, tensor in tensors.items()}
    header = {"format": FORMAT, "config": config.to_json()}
    header |= {key: json.dumps(value) for key, value in (metadata or {}).items()}
    partial = path.with_name(path.name + ".part")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        save_file(stored, partial, metadata=header)
        partial.chmod(mode)  # some versions of safetensors write files that only the owner reads
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor as it is stored: contiguous, on the CPU, floating ones in `dtype`."""
    tensor = tensor.detach().cpu()
    if name.startswith(FLOAT32_ONLY) and tensor.is_floating_point():
        tensor = tensor.float()
    elif dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(dtype)
    return tensor.contiguous()


def load_network(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    *,
    parts: Collection[str] = PARTS,
    companions: Sequence[Path] | None = None,
) -> Av2tSam:
    """Rebuild a network from its file, in evaluation mode, without a second copy in memory.

    Args:
        path: A file that `save_network` or the conversion wrote.
        device: Where the weights go.
        dtype: Floating weights become it, but for those of the mask decoder, which become float32
            then; None keeps the file's.
        parts: The parts that will be used; the others stay empty and cannot be called.
        companions: Files with what this one leaves out; None looks for them by name.

    Raises:
        WeightsError: If the file is missing, damaged, of another kind, or does not fit its own
            configuration, or if a part of it is nowhere to be found.
    """
    config = ModelConfig.from_json(read_metadata(path)["config"])
    model = build_empty(config)
    for part, module in model.named_children():
        if part not in parts:
            module.to("meta")
    everything = model.state_dict()
    wanted = {name: t.shape for name, t in everything.items() if name.split(".")[0] in parts}
    reader = _Reader(torch.device(device), dtype)
    reader.read(path, wanted, known=everything.keys())
    absent = _parts_of(wanted.keys() - reader.state.keys())
    if "projector" in absent and "projector" not in _parts_of(reader.state):
        raise WeightsError(
            f"{path}: cannot hear, it holds only what written phrases need; pass --text PHRASE, or "
            "choose another model (see: av2tsam models list)"
        )
    if absent:
        found = locate.companions(config, absent, path) if companions is None else companions
        for companion in found:
            _check_companion(companion, config, absent)
            reader.read(companion, wanted, known=everything.keys())
    _require(path, wanted.keys() - reader.state.keys())
    model.load_state_dict({**everything, **reader.state}, strict=True, assign=True)
    return model.eval()


class _Reader:
    """Collects tensors from files, the first file first, as the network runs them."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None) -> None:
        self.device = device
        self.dtype = dtype
        self.state: dict[str, Tensor] = {}

    def read(self, path: Path, wanted: Mapping[str, torch.Size], *, known: Collection[str]) -> None:
        """Take what is wanted and not there yet; a name that is not known is an error."""
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
            _refuse_strangers(path, [name for name in names if name not in known])
            needed = [name for name in names if name in wanted and name not in self.state]
            for start in range(0, len(needed), AT_A_TIME):
                # Opened anew each time: what is read and converted leaves the memory again.
                with safe_open(path, framework="pt", device=str(self.device)) as file:
                    for name in needed[start : start + AT_A_TIME]:
                        self.state[name] = self._fitting(path, name, file.get_tensor(name), wanted)
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{path}: damaged ({error})") from error

    def _fitting(
        self, path: Path, name: str, tensor: Tensor, wanted: Mapping[str, torch.Size]
    ) -> Tensor:
        if tensor.shape != wanted[name]:
            raise WeightsError(f"{path}: {name} is {list(tensor.shape)}, not {list(wanted[name])}")
        if not tensor.is_floating_point():
            return tensor
        if name.startswith(FLOAT32_ONLY):
            return tensor.float()
        if self.dtype is None:
            return tensor
        return tensor.to(torch.float32 if name.startswith(FLOAT32_RUN) else self.dtype)


def _refuse_strangers(path: Path, names: Sequence[str]) -> None:
    if names:
        raise WeightsError(
            f"{path}: does not fit its configuration: {len(names)} tensors that are not part of "
            f"the network ({', '.join(names[:3])})"
        )


def _require(path: Path, missing: Collection[str]) -> None:
    if missing:
        raise WeightsError(
            f"{path}: {len(missing)} tensors of {', '.join(_parts_of(missing))} are missing "
            f"({', '.join(sorted(missing)[:3])})"
        )


def _check_companion(companion: Path, config: ModelConfig, parts: Sequence[str]) -> None:
    """A part from another file must be of the same architecture as the one that is missed."""
    other = ModelConfig.from_json(read_metadata(companion)["config"])
    pairs = {
        "clip": (other.clip, config.clip),
        "clap": (other.clap, config.clap),
        "text_sam": ((other.sam, other.beit3), (config.sam, config.beit3)),
    }
    for part in parts:
        theirs, ours = pairs.get(part, (None, None))
        if theirs != ours and locate.part_name(other, part) == locate.part_name(config, part):
            raise WeightsError(f"{companion}: its {part} is of another size")


def _parts_of(names: Iterable[str]) -> list[str]:
    """Parts that tensors belong to, in the network's order."""
    found = {name.split(".")[0] for name in names}
    return [part for part in PARTS if part in found]
