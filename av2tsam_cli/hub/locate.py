"""From a model's name to its file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.registry import HEARING, MODELS, TEXT_PROMPTED, TOKENIZER

if TYPE_CHECKING:  # importing it imports torch, which looking for a file does not need
    from av2tsam_cli.model.config import ModelConfig

PACKAGED = "nano"


def home() -> Path:
    """Folder of the installed models: `AV2TSAM_HOME`, else the platform's cache folder."""
    named = os.environ.get("AV2TSAM_HOME")
    return Path(named).expanduser() if named else user_cache_path("av2tsam")


def place(name: str) -> Path:
    """Where the file of a name is, or would be."""
    if name == PACKAGED:
        return Path(str(resources.files("av2tsam_cli") / "assets" / f"{PACKAGED}.safetensors"))
    entry = MODELS.get(name)
    return home() / (entry.installed_as if entry else f"{name}.safetensors")


def resolve(model: str | Path | None = None, *, hears: bool = True) -> Path:
    """The checkpoint file that a model's name, or a path, stands for.

    Args:
        model: A name, the path of a checkpoint, or None for the best that is installed.
        hears: Whether the best has to follow sound; for written phrases it need not.

    Raises:
        WeightsError: If there is no such file.
    """
    if model is None:
        installed = (place(name) for name in (HEARING if hears else TEXT_PROMPTED + HEARING))
        return next((path for path in installed if path.is_file()), None) or _packaged()
    if model == PACKAGED:
        return _packaged()
    for path in (Path(model), place(str(model))):
        if path.is_file():
            return path
    if str(model) in MODELS:
        raise WeightsError(f"{model} is not installed; {how_to_get(str(model))}")
    raise WeightsError(f"{model}: neither a file nor the name of a model ({', '.join(MODELS)})")


def _packaged() -> Path:
    path = place(PACKAGED)
    if not path.is_file():
        raise WeightsError(f"{path} is missing from this installation; install the package again")
    return path


def part_name(config: ModelConfig, part: str) -> str:
    """Name of the file that holds a frozen part of a network."""
    names = {
        "clip": "clip-vit-b-32",
        "clap": f"clap-{config.clap.kind}",
        "text_sam": f"{config.name}-text",
    }
    return names.get(part, config.name)


def companions(config: ModelConfig, parts: Iterable[str], checkpoint: Path) -> list[Path]:
    """Files with the parts that a checkpoint leaves out: beside it, or among the installed ones.

    Raises:
        WeightsError: If one of them is not there.
    """
    found: list[Path] = []
    for part in parts:
        name = part_name(config, part)
        path = find_companion(name, checkpoint)
        if path is None:
            raise WeightsError(
                f"{checkpoint}: holds no {part}, and {name}.safetensors is neither beside it nor "
                f"in {home()}; {how_to_get(name)}"
            )
        found.append(path)
    return found


def find_companion(name: str, checkpoint: Path) -> Path | None:
    """The file of a name beside a checkpoint, else the installed one; None if there is neither."""
    places = (checkpoint.parent / f"{name}.safetensors", place(name))
    return next((path for path in places if path.is_file() and path != checkpoint), None)


# The tokenizer of the large networks, as it is called in the places where it is found.
TOKENIZER_FILES = (MODELS[TOKENIZER].installed_as, "beit3.spm", "sentencepiece.bpe.model")


def find_tokenizer(checkpoint: Path) -> Path | None:
    """The SentencePiece model of text prompts, beside a checkpoint or installed; None if absent."""
    folders = (checkpoint.parent, home())
    places = (folder / name for folder in folders for name in TOKENIZER_FILES)
    return next((path for path in places if path.is_file()), None)


def tokenizer_file(checkpoint: Path) -> Path:
    """The SentencePiece model that the large networks' text prompts need.

    Raises:
        WeightsError: If it is neither beside the checkpoint nor among the installed models.
    """
    path = find_tokenizer(checkpoint)
    if path is None:
        raise WeightsError(
            f"text prompts with {checkpoint} need {' or '.join(TOKENIZER_FILES[1:])} beside it or "
            f"in {home()}; {how_to_get(TOKENIZER)}"
        )
    return path


def how_to_get(name: str) -> str:
    """The commands that install a model, for the end of an error line."""
    entry = MODELS.get(name)
    if entry is None or entry.repository is None:
        return "train or convert it first"
    return (
        f"`av2tsam models pull {name}` fetches it; without network, get {entry.origin} on "
        f"huggingface.co and run `av2tsam models convert {entry.file or 'FILE'}`"
    )
