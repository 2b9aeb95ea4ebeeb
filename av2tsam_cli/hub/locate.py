"""Find the files of models, of parts of models, and of the tokenizer."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from platformdirs import user_cache_path

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.hub.registry import (
    AUDIO_MODELS,
    BPE_TOKENIZERS,
    BUNDLED_MODEL,
    CLAP_MODELS,
    MODELS,
    REAL,
    TEXT_ONLY_MODELS,
    TOKENIZER,
    members,
)

if TYPE_CHECKING:  # it imports torch, which finding a file does not need
    from av2tsam_cli.embeddings.text import BpeKind
    from av2tsam_cli.model.config import ModelConfig

Use = Literal["trained", "words", "text", "sounds"]
"""What a model is loaded for: to segment what is heard as it was trained to, or through the names
of what is heard, or to segment what a phrase describes, or only to name what is heard."""

DEFAULTS: dict[Use | None, tuple[str, ...]] = {
    None: (*AUDIO_MODELS, REAL),
    "trained": AUDIO_MODELS,
    "words": (REAL, *AUDIO_MODELS),
    "text": TEXT_ONLY_MODELS + AUDIO_MODELS,
    "sounds": CLAP_MODELS,
}
"""Which models are used without being chosen if they are installed, best first; else nano."""

SEPARATE_PARTS = ("clip", "clap", "text_sam")
"""Parts that a trained checkpoint may leave out, because public models contain them."""

TOKENIZER_FILES = (MODELS[TOKENIZER].installed_as, "beit3.spm", "sentencepiece.bpe.model")
"""File names under which the tokenizer of the full-size models is found."""


def home() -> Path:
    """Return the folder of installed models: `AV2TSAM_HOME`, else the platform's cache folder."""
    folder = os.environ.get("AV2TSAM_HOME")
    return Path(folder).expanduser() if folder else user_cache_path("av2tsam")


def installed_path(name: str) -> Path:
    """Return the path of a model's file, or of a set's network, whether or not it is installed."""
    if name == BUNDLED_MODEL:
        return Path(str(resources.files("av2tsam_cli") / "assets" / MODELS[name].installed_as))
    entry = MODELS.get(name)
    if entry is not None and entry.is_set:
        return installed_path(entry.needs[0])
    return home() / (entry.installed_as if entry else f"{name}.safetensors")


def installed_models() -> list[str]:
    """Return the names of the registry's models whose files are present, and of complete sets."""
    return [name for name in MODELS if not missing_members(name)]


def missing_members(name: str) -> list[str]:
    """Return which models of a set, or whether a single one, are not installed."""
    return [member for member in members(name) if not installed_path(member).is_file()]


def default_model(use: Use | None = None) -> str:
    """Return the name of the best installed model for a use; None is anything with sound."""
    complete = (name for name in DEFAULTS[use] if not missing_members(name))
    return next(complete, BUNDLED_MODEL)


def resolve(model: str | Path | None = None, use: Use | None = None) -> Path:
    """Return the checkpoint file of a model.

    Args:
        model: A name, the path of a checkpoint, or None for the best installed model.
        use: What the best installed model is chosen for; None for anything that involves sound.

    Raises:
        WeightsError: There is no such file.
    """
    if model is None:
        model = default_model(use)
    name = str(model)
    if name == BUNDLED_MODEL:
        return _bundled()
    if Path(model).is_file():
        return Path(model)
    missing = missing_members(name)
    if not missing:
        return installed_path(name)
    if name in MODELS and MODELS[name].is_set:
        raise WeightsError(
            f"{name}: {', '.join(missing)} not installed; run 'av2tsam models pull {name}'"
        )
    if name in MODELS:
        raise WeightsError(f"{name}: not installed; {install_hint(name)}")
    raise WeightsError(
        f"{model}: neither a file nor the name of a model; the models are {', '.join(MODELS)}"
    )


def _bundled() -> Path:
    path = installed_path(BUNDLED_MODEL)
    if not path.is_file():
        raise WeightsError(f"{path}: missing from this installation; install the package again")
    return path


def part_name(config: ModelConfig, part: str) -> str:
    """Return the name of the model whose file contains a part of a network."""
    names = {
        "clip": "clip-vit-b-32",
        "clap": f"clap-{config.clap.kind}",
        "text_sam": f"{config.name}-text",
    }
    return names.get(part, config.name)


def part_file(config: ModelConfig, part: str, checkpoint: Path) -> Path:
    """Return the file with a part that a checkpoint leaves out.

    Raises:
        WeightsError: It is neither beside the checkpoint nor installed.
    """
    name = part_name(config, part)
    path = find_model(name, checkpoint)
    if path is None:
        raise WeightsError(
            f"{checkpoint}: contains no {part}, and {name}.safetensors is neither beside it nor "
            f"in {home()}; {install_hint(name)}"
        )
    return path


def find_model(name: str, checkpoint: Path) -> Path | None:
    """Return a model's file beside a checkpoint, else the installed one, else None."""
    paths = (checkpoint.parent / f"{name}.safetensors", installed_path(name))
    return next((path for path in paths if path.is_file() and path != checkpoint), None)


def find_tokenizer(checkpoint: Path) -> Path | None:
    """Return the tokenizer's SentencePiece model beside a checkpoint, else installed, else None."""
    folders = (checkpoint.parent, home())
    paths = (folder / name for folder in folders for name in TOKENIZER_FILES)
    return next((path for path in paths if path.is_file()), None)


def tokenizer_file(checkpoint: Path) -> Path:
    """Return the SentencePiece model that the full-size models need for text prompts.

    Raises:
        WeightsError: It is neither beside the checkpoint nor installed.
    """
    path = find_tokenizer(checkpoint)
    if path is None:
        raise WeightsError(
            f"{checkpoint}: text prompts need {' or '.join(TOKENIZER_FILES[1:])} beside it or in "
            f"{home()}; {install_hint(TOKENIZER)}"
        )
    return path


def bpe_file(kind: BpeKind, checkpoint: Path) -> Path:
    """Return the tokenizer of one of CLAP's text encoders.

    Raises:
        WeightsError: It is neither beside the checkpoint nor installed.
    """
    name = BPE_TOKENIZERS[kind]
    file = MODELS[name].installed_as
    path = next(
        (each for each in (checkpoint.parent / file, home() / file) if each.is_file()), None
    )
    if path is None:
        raise WeightsError(
            f"{checkpoint}: phrases need {file} beside it or in {home()}; {install_hint(name)}"
        )
    return path


def install_hint(name: str) -> str:
    """Return the commands that install a model, for the end of an error message."""
    entry = MODELS.get(name)
    if entry is None or entry.repository is None:
        return "train or convert it first"
    return (
        f"run 'av2tsam models pull {name}', or download {entry.origin} by hand and run "
        f"'av2tsam models convert {entry.file or 'FILE'}'"
    )
