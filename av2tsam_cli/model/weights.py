"""From a model's name to its file."""

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from platformdirs import user_cache_path

from av2tsam_cli.errors import WeightsError
from av2tsam_cli.model.config import ModelConfig

PACKAGED = "nano"

# Whole networks that hear, best first, and what would be fetched from where.
AUDIO_VISUAL = ("evf-sam2", "evf-sam")
SOURCES = {
    "evf-sam2": "Kyungbok/AV2T-SAM on huggingface.co",
    "evf-sam": "Kyungbok/AV2T-SAM on huggingface.co",
    "evf-sam2-text": "YxZhang/evf-sam2-multitask on huggingface.co",
    "evf-sam-text": "YxZhang/evf-sam-multitask on huggingface.co",
    "clap-laion": "630k-audioset-best.pt of lukewys/laion_clap on huggingface.co",
    "clap-microsoft": "CLAP_weights_2023.pth of microsoft/msclap on huggingface.co",
    "clip-vit-b-32": "timm/vit_base_patch32_clip_224.openai on huggingface.co",
}


def home() -> Path:
    """Folder of the installed models: `AV2TSAM_HOME`, else the platform's cache folder."""
    named = os.environ.get("AV2TSAM_HOME")
    return Path(named) if named else user_cache_path("av2tsam")


def resolve(model: str | Path | None = None) -> Path:
    """The checkpoint file that a model's name, or a path, stands for.

    Args:
        model: A name, the path of a checkpoint, or None for the best that is installed.

    Raises:
        WeightsError: If there is no such file.
    """
    if model is None:
        installed = (home() / f"{name}.safetensors" for name in AUDIO_VISUAL)
        return next((path for path in installed if path.is_file()), None) or _packaged()
    if model == PACKAGED:
        return _packaged()
    for path in (Path(model), home() / f"{model}.safetensors"):
        if path.is_file():
            return path
    if str(model) in SOURCES:
        raise WeightsError(f"{model} is not installed; {_fetch(str(model))}")
    raise WeightsError(
        f"{model}: neither a file nor the name of a model ({', '.join([PACKAGED, *SOURCES])})"
    )


def _packaged() -> Path:
    path = Path(str(resources.files("av2tsam_cli") / "assets" / f"{PACKAGED}.safetensors"))
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
    return [_companion(part_name(config, part), part, checkpoint) for part in parts]


def _companion(name: str, part: str, checkpoint: Path) -> Path:
    for folder in (checkpoint.parent, home()):
        path = folder / f"{name}.safetensors"
        if path.is_file() and path != checkpoint:
            return path
    raise WeightsError(
        f"{checkpoint}: holds no {part}, and {name}.safetensors is neither beside it nor in "
        f"{home()}; {_fetch(name)}"
    )


# The tokenizer of the large networks, as it is called in the places where it is found.
TOKENIZER_FILES = ("beit3.spm", "sentencepiece.bpe.model")


def tokenizer_file(checkpoint: Path) -> Path:
    """The SentencePiece model that the large networks' text prompts need.

    Raises:
        WeightsError: If it is neither beside the checkpoint nor among the installed models.
    """
    places = [folder / name for folder in (checkpoint.parent, home()) for name in TOKENIZER_FILES]
    for path in places:
        if path.is_file():
            return path
    raise WeightsError(
        f"text prompts with {checkpoint} need {' or '.join(TOKENIZER_FILES)} beside it or in "
        f"{home()}; it is a file of YxZhang/evf-sam-multitask on huggingface.co"
    )


def _fetch(name: str) -> str:
    source = SOURCES.get(name)
    if source is None:
        return "train or convert it first"
    return f"it is made from {source} by `av2tsam models convert`"
