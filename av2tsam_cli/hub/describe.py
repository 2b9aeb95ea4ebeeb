"""Describe models as JSON values: the registry's entry, the install record, the checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.hub.installed import read_install_record
from av2tsam_cli.hub.locate import (
    SEPARATE_PARTS,
    default_model,
    find_model,
    find_tokenizer,
    installed_path,
    missing_members,
    part_name,
    resolve,
)
from av2tsam_cli.hub.registry import AUDIO_MODELS, MODELS, TOKENIZER, NamedModel, with_needs
from av2tsam_cli.hub.tensor_file import TensorFile, read_metadata

if TYPE_CHECKING:  # it imports torch, which a list of models does not need
    from av2tsam_cli.model.config import ModelConfig


def describe(model: str | None) -> dict[str, object]:
    """Describe a model in detail.

    Args:
        model: A name, the path of a checkpoint, or None for the best installed model.

    Raises:
        WeightsError: There is no such model, or its file is corrupted.
    """
    model = default_model() if model is None else model
    entry = MODELS.get(model)
    if entry is None:
        path = resolve(model)
        return {**_describe_record(path.stem), **describe_checkpoint(path)}
    if missing := missing_members(entry.name):
        return {**describe_entry(entry), **({"missing": missing} if entry.is_set else {})}
    checkpoint = describe_checkpoint(installed_path(entry.name)) if entry.parts else {}
    return {**describe_entry(entry), **_describe_record(entry.name), **checkpoint}


def describe_entry(entry: NamedModel) -> dict[str, object]:
    """Describe a model of the registry: purpose, origin, licence, and whether it is installed."""
    path = installed_path(entry.name)
    installed = not missing_members(entry.name)
    size = entry.size
    if entry.is_set:
        size = sum(member.size or 0 for member in with_needs(entry.name))
    elif installed and not entry.repository:
        size = path.stat().st_size
    return {
        "model": entry.name,
        "purpose": entry.purpose,
        "bytes": size,
        "licence": entry.licence,
        "installed": installed,
        "path": str(path),
        "repository": entry.repository,
        "file": entry.file,
        "parts": list(entry.parts),
        "needs": list(entry.needs),
        "preset": entry.preset,
        "unverified": entry.unverified or None,
        "measured": _scores(path) if installed and entry.parts else None,
    }


def network_config(model: str | None) -> ModelConfig:
    """Return the configuration of a network, which may also be one that is not installed.

    Args:
        model: A name, the path of a checkpoint, or None for the best installed model.

    Raises:
        UsageError: The model is not a whole network.
        WeightsError: There is no such model, or its file is corrupted.
    """
    from av2tsam_cli.hub.checkpoint import read_config
    from av2tsam_cli.model.config import PRESETS

    entry = MODELS.get(model or "")
    if entry is not None and "projector" not in entry.parts:
        raise UsageError(
            f"{entry.name}: does not have all parts of a network; use one that has, such as "
            f"{AUDIO_MODELS[0]}"
        )
    if entry is not None and not installed_path(entry.name).is_file():
        return PRESETS[entry.preset or ""]
    return read_config(resolve(model))


def describe_checkpoint(path: Path) -> dict[str, object]:
    """Describe a checkpoint: its parameters, the models that it still needs, and its metadata.

    Raises:
        WeightsError: It is missing, corrupted or not one of this tool's checkpoints.
    """
    from av2tsam_cli.hub.checkpoint import read_config

    metadata = read_metadata(path)
    config = read_config(path)
    parameters, types = Counter[str](), Counter[str]()
    for name, tensor in TensorFile(path).tensors.items():
        parameters[name.partition(".")[0]] += prod(tensor.shape)
        types[tensor.dtype] += prod(tensor.shape)
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "preset": config.name,
        "dtype": [name for name, _ in types.most_common()],
        "parameters": {**parameters, "total": parameters.total()},
        "missing": needed_models(path, config, parameters),
        **{key: _json_or_text(text) for key, text in sorted(metadata.items())},
    }


def needed_models(path: Path, config: ModelConfig, parts: Iterable[str]) -> list[str]:
    """Name the models that a checkpoint needs and that are neither beside it nor installed.

    Args:
        path: The checkpoint.
        config: Its configuration.
        parts: The parts of the network that it contains.
    """
    contained = set(parts)
    supports_audio = "projector" in contained
    absent = [part for part in SEPARATE_PARTS if supports_audio and part not in contained]
    names = [part_name(config, part) for part in absent]
    missing = [name for name in names if find_model(name, path) is None]
    needs_tokenizer = (supports_audio or "text_sam" in contained) and not config.words
    return missing + ([TOKENIZER] if needs_tokenizer and find_tokenizer(path) is None else [])


def _describe_record(name: str) -> dict[str, object]:
    record = read_install_record(name)
    return {} if record is None else {"record": asdict(record)}


def _scores(path: Path) -> object:
    """Return the scores in a checkpoint's model card; None if it has none or is unreadable."""
    try:
        card = _json_or_text(read_metadata(path).get("card", "{}"))
    except WeightsError:  # reported by 'av2tsam models verify'
        return None
    return card.get("scores") if isinstance(card, dict) else None


def _json_or_text(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
