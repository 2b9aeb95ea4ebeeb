"""Read safetensors files: metadata, the types and shapes of tensors, and the tensors themselves.

Only `TensorFile.read` imports torch, which takes seconds: listing the models does without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from av2tsam_cli.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "av2tsam-1"
"""The `format` entry in the metadata of this tool's checkpoints."""


@dataclass(frozen=True)
class TensorInfo:
    """The header's entry of one tensor."""

    dtype: str
    """Type as safetensors abbreviates it, such as F16."""
    shape: tuple[int, ...]
    """Size of each dimension."""


class TensorFile:
    """A safetensors file. Creating the object reads the header only.

    Attributes:
        path: The file.
        metadata: The file's metadata, all of it text.
        tensors: Type and shape of every tensor by name, in file order.

    Raises:
        WeightsError: The file is missing, corrupted or not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened("np") as file:
            self.metadata: dict[str, str] = file.metadata() or {}
            self.tensors = {name: _info(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 - not a mapping

    def read(self, names: Iterable[str] | None = None, device: str = "cpu") -> dict[str, Tensor]:
        """Return tensors by name, all of them by default.

        On the CPU they are memory-mapped: reading them costs no memory until they are used, but
        they are not aligned for fast arithmetic. Copy those that a network computes with.

        Raises:
            WeightsError: The file cannot be read.
        """
        with self._opened("pt", device) as file:
            return {name: file.get_tensor(name) for name in names or self.tensors}

    @contextmanager
    def _opened(self, framework: str, device: str = "cpu") -> Iterator[Any]:
        try:
            str(self.path).encode()
        except UnicodeEncodeError as error:  # a limit of safetensors
            raise WeightsError(f"{self.path}: the name is not UTF-8; rename the file") from error
        try:
            with safe_open(self.path, framework=framework, device=device) as file:
                yield file
        except FileNotFoundError as error:
            raise WeightsError(f"{self.path}: file not found; check the path") from error
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"{self.path}: corrupted, truncated or not a safetensors file "
                f"({str(error)[:200]}); "
                "download or copy it again"
            ) from error


def _info(tensor: Any) -> TensorInfo:
    return TensorInfo(tensor.get_dtype(), tuple(tensor.get_shape()))


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of one of this tool's checkpoints: text, most of it JSON.

    Raises:
        WeightsError: The file is missing, corrupted or not one of this tool's checkpoints.
    """
    metadata = TensorFile(path).metadata
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise WeightsError(
            f"{path}: not an av2tsam checkpoint; 'av2tsam models convert' makes one from the "
            "authors' files"
        )
    return metadata
