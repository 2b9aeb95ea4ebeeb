"""From a model's name to its file."""

from importlib import resources
from pathlib import Path

from av2tsam_cli.errors import WeightsError

PACKAGED = "nano"

# Where the named models' files come from.
SOURCES = {
    "evf-sam": "YxZhang/evf-sam-multitask on huggingface.co",
    "evf-sam2": "YxZhang/evf-sam2-multitask on huggingface.co",
}


def resolve(model: str | Path | None = None) -> Path:
    """The checkpoint file that a model's name, or a path, stands for.

    Args:
        model: A name, the path of a checkpoint, or None for the best that is installed.

    Raises:
        WeightsError: If there is no such file.
    """
    if model is None or model == PACKAGED:
        return _packaged()
    path = Path(model)
    if path.is_file():
        return path
    if str(model) in SOURCES:
        raise WeightsError(f"{model} is not installed; it would be made from {SOURCES[str(model)]}")
    raise WeightsError(
        f"{model}: neither a file nor a model's name ({', '.join([PACKAGED, *SOURCES])})"
    )


def _packaged() -> Path:
    path = Path(str(resources.files("av2tsam_cli") / "assets" / f"{PACKAGED}.safetensors"))
    if not path.is_file():
        raise WeightsError(f"{path} is missing from this installation; install the package again")
    return path
