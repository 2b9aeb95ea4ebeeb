"""Store in a result what it was made from, so that it can be recognised and skipped."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.files import read_text_file, text_id
from av2tsam_cli.media.container import open_media
from av2tsam_cli.media.structure import read_structure
from av2tsam_cli.network import is_remote

RECORD_NAME = "av2tsam.json"
"""The record in a folder of results."""
TAG = re.compile(r"av2tsam 1 input=(\w+) model=(\w+) options=(\w+)")
"""The record in a tag of a video. The number changes if the same options give other results."""

Part = Literal["input", "model", "options"]


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of everything that determines a result; equal hashes mean equal results."""

    input: str
    """Hash of the content of the input."""
    model: str
    """Hash of the content of the weights."""
    options: str
    """Hash of the options that change the result."""

    @classmethod
    def from_tag(cls, tag: str) -> Self | None:
        """Return the fingerprint in a tag of a video; None if the tag contains none."""
        found = TAG.fullmatch(tag)
        return None if found is None else cls(*found.groups())

    @property
    def tag(self) -> str:
        """The tag of a video."""
        return f"av2tsam 1 input={self.input} model={self.model} options={self.options}"


@dataclass(frozen=True)
class ResultRecord:
    """What a result was made from."""

    input: str
    """Name of the input, without its folder."""
    input_id: str
    """See `Fingerprint.input`."""
    model: str
    """Name of the model."""
    model_id: str
    """See `Fingerprint.model`."""
    options: Mapping[str, object]
    """The options that change the result and are not at their defaults."""

    @property
    def fingerprint(self) -> Fingerprint:
        """The hashes to compare with another result."""
        options = json.dumps(self.options, default=str, sort_keys=True)
        return Fingerprint(self.input_id, self.model_id, text_id(options))

    def write(self, folder: Path) -> None:
        """Add `av2tsam.json` to a folder of results that is otherwise complete."""
        content = {
            "made_by": f"av2tsam {version('av2tsam')}",
            "input": self.input,
            "model": self.model,
            "options": self.options,
            "files": _count(folder),
            "fingerprint": asdict(self.fingerprint),
        }
        text = json.dumps(content, default=str, indent=2)
        (folder / RECORD_NAME).write_text(text + "\n", encoding="utf-8")


def tag_name(path: Path) -> str:
    """Return the name of a tag that the container of a video keeps."""
    return "make" if path.suffix.lower() == ".mov" else "keywords"


def why_different(path: Path, wanted: Fingerprint) -> str:
    """Return why an existing result is not the wanted one; "" if it is, and is complete.

    Args:
        path: A video, or a folder.
        wanted: The fingerprint of the wanted result.

    Returns:
        The end of a sentence, such as "was made with other options".
    """
    found, complete = _read_folder(path) if path.is_dir() else _read_video(path)
    if found is None:
        return "does not say what it was made from"
    parts: dict[Part, str] = {
        "input": "from another input",
        "model": "with another model",
        "options": "with other options",
    }
    other = [text for part, text in parts.items() if getattr(found, part) != getattr(wanted, part)]
    if other:
        return f"was made {' and '.join(other)}"
    return "" if complete else "is incomplete"


def is_record(path: Path) -> bool:
    """Return whether a file is an `av2tsam.json` of this program."""
    return path.is_file() and not path.is_symlink() and _read_folder(path.parent)[0] is not None


def _read_folder(folder: Path) -> tuple[Fingerprint | None, bool]:
    """Return the fingerprint of the results in a folder, and whether they are complete."""
    try:
        content = json.loads(read_text_file(folder / RECORD_NAME))
        found = Fingerprint(**content["fingerprint"])
        return found, _count(folder) == content["files"] + 1  # with this file
    except (UsageError, OSError, ValueError, TypeError, LookupError, RecursionError):
        return None, False


def _read_video(path: Path) -> tuple[Fingerprint | None, bool]:
    """Return the fingerprint of a video, and whether it is complete."""
    try:
        with open_media(path) as video:
            tags = {name.lower(): value for name, value in video.metadata.items()}
        whole = is_remote(path) or read_structure(path).is_whole  # files in stores are complete
        return Fingerprint.from_tag(tags.get(tag_name(path), "")), whole
    except (Av2tsamError, OSError):
        return None, False


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
