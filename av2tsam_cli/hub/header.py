"""What a checkpoint says of itself, without torch: metadata, and its tensors' types and sizes."""

from collections import Counter
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from av2tsam_cli.errors import WeightsError

FORMAT = "av2tsam-1"


def read_metadata(path: Path) -> dict[str, str]:
    """The file's metadata, all of it text.

    Raises:
        WeightsError: If it is missing, damaged or not one of ours.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: missing, damaged, or no safetensors file ({error})") from error
    if metadata.get("format") != FORMAT or "config" not in metadata:
        raise WeightsError(
            f"{path}: not a checkpoint of this tool; `av2tsam models convert` makes one from the "
            "authors' files"
        )
    return metadata


def count_values(path: Path) -> dict[str, Counter[str]]:
    """Numbers of values by part of the network and by type, as safetensors calls it (F16).

    Raises:
        WeightsError: If the file is missing or damaged.
    """
    counts: dict[str, Counter[str]] = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                tensor = file.get_slice(name)
                part = counts.setdefault(name.split(".")[0], Counter())
                part[tensor.get_dtype()] += prod(tensor.get_shape())
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: missing, damaged, or no safetensors file ({error})") from error
    return counts
