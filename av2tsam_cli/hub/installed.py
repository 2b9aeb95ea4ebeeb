"""Install, verify and remove models; each has a record of its origin and checksum beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.files import atomic_file, read_text_file, write_errors
from av2tsam_cli.hub.locate import home, installed_models, installed_path
from av2tsam_cli.hub.registry import (
    BPE_TOKENIZERS,
    BUNDLED_MODEL,
    MODELS,
    TOKENIZER,
    NamedModel,
    members,
    with_needs,
)

if TYPE_CHECKING:  # torch takes seconds to import and is needed only to install
    import torch

    from av2tsam_cli.hub.convert import ConversionReport
    from av2tsam_cli.model.config import ProjectorKind

VerifyStatus = Literal["ok", "differs", "missing", "unrecorded"]

SENTENCEPIECE_SUFFIXES = (".spm", ".model")
"""Suffixes of SentencePiece models, which are copied unchanged."""

BPE_SUFFIXES = ("tokenizer.json", ".bpe")
"""Ends of the names of byte-level BPE tokenizers, which are copied unchanged."""

HOME_HINT = "or set AV2TSAM_HOME to another folder"
"""Ends the error messages about the folder of installed models."""


@dataclass(frozen=True)
class Origin:
    """The published file that an installed model was made from."""

    file: str
    """Path in the repository, or on this computer if it was converted by hand."""
    sha256: str | None
    """Checksum of the published file; None for a folder of shards."""
    repository: str | None = None
    """Repository on the Hugging Face hub; None if it was converted by hand."""
    revision: str | None = None
    """Commit of the repository."""


@dataclass(frozen=True)
class InstallRecord:
    """The content of NAME.json beside an installed file."""

    name: str
    """Name of the model."""
    sha256: str
    """Checksum of the installed file."""
    bytes: int
    """Size of the installed file."""
    source: Origin
    """The published file."""
    date: str
    """Time of installation, UTC, ISO 8601."""
    tool: str
    """Version of this tool that installed it."""


@dataclass(frozen=True)
class InstalledModel:
    """The result of an installation."""

    path: Path
    """The installed file."""
    record: InstallRecord
    """Its record."""
    report: ConversionReport | None
    """Report of the conversion; None for a tokenizer."""


def install(
    path: Path,
    origin: Origin,
    *,
    expected: NamedModel | None = None,
    overwrite: bool = False,
    projector: ProjectorKind = "mul",
    dtype: torch.dtype | None = None,
) -> InstalledModel:
    """Convert a published file and install it with its record.

    Args:
        path: A published checkpoint, or the tokenizer's SentencePiece model.
        origin: Where it comes from, for the record.
        expected: The model that it must be; None installs any known model.
        overwrite: Whether to replace an installed model of the same name.
        projector: See `convert.convert`.
        dtype: See `convert.convert`.

    Raises:
        WeightsError: The file is corrupted, unknown or not the expected model, or the result
            cannot be written. An installed model is left as it was.
        UsageError: A model of that name is installed and `overwrite` is not set.
    """
    if path.name.endswith(SENTENCEPIECE_SUFFIXES + BPE_SUFFIXES):
        name = _recognise_tokenizer(path)
        _check_name(path, name, expected, overwrite=overwrite)
        with _new_file(name) as (part, note):
            shutil.copyfile(path, part)
            record = _write_record(name, part, note, origin)
        return InstalledModel(installed_path(name), record, None)
    from av2tsam_cli.hub.checkpoint import write_new_file
    from av2tsam_cli.hub.convert import prepare_conversion

    config = expected.config if expected else None
    conversion = prepare_conversion(path, config=config, projector=projector)
    name = conversion.report.name
    _check_name(path, name, expected, overwrite=overwrite)
    with _new_file(name) as (part, note):
        write_new_file(conversion.tensors, part, conversion.config, dtype=dtype)
        record = _write_record(name, part, note, origin)
    return InstalledModel(installed_path(name), record, conversion.report)


def _recognise_tokenizer(path: Path) -> str:
    """Return the name of the model that a tokenizer's file is.

    Raises:
        WeightsError: It is corrupted or the tokenizer of another model.
    """
    if path.name.endswith(BPE_SUFFIXES):
        from av2tsam_cli.embeddings.text import read_bpe

        return BPE_TOKENIZERS[read_bpe(path)[1]]
    from av2tsam_cli.model.text import SentencePieceTokenizer

    SentencePieceTokenizer.read(path)
    return TOKENIZER


def _check_name(path: Path, name: str, expected: NamedModel | None, *, overwrite: bool) -> None:
    """Refuse a file that is not the expected model, or that would replace one unasked."""
    if expected is not None and expected.name != name:
        raise WeightsError(f"{path}: contains {name}, not {expected.name}; pick another file")
    if name == BUNDLED_MODEL:
        raise UsageError(
            f"{path}: {BUNDLED_MODEL} comes with the package; set `out` to write it to a file"
        )
    if installed_path(name).exists() and not overwrite:
        raise UsageError(f"{installed_path(name)}: already exists; set `overwrite` to replace it")


@contextmanager
def _new_file(name: str) -> Iterator[tuple[Path, Path]]:
    """Yield temporary paths for a model and its record, which are renamed together at the end."""
    path = installed_path(name)
    errors = write_errors(path, raises=WeightsError, catch=(SafetensorError,), hint=HOME_HINT)
    with errors, atomic_file(record_path(name)) as note, atomic_file(path) as part:
        yield part, note
        # If this is killed between the renaming of the two, the new model has no record. It must
        # not have that of the old one, by which it would count as corrupted.
        record_path(name).unlink(missing_ok=True)


def _write_record(name: str, part: Path, note: Path, origin: Origin) -> InstallRecord:
    """Write the record of a complete file."""
    record = InstallRecord(
        name=name,
        sha256=sha256(part),
        bytes=part.stat().st_size,
        source=origin,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        tool=f"av2tsam {version('av2tsam')}",
    )
    note.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    return record


def sha256(path: Path) -> str:
    """Return the checksum of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_path(name: str) -> Path:
    """Return the path of an installed model's record."""
    return home() / f"{name}.json"


def read_install_record(name: str) -> InstallRecord | None:
    """Return the record of an installed model, or None if it is missing or unreadable."""
    try:
        values = json.loads(read_text_file(record_path(name)))
        return InstallRecord(**{**values, "source": Origin(**values["source"])})
    except (UsageError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def names_to_verify() -> list[str]:
    """Return the names of all models that are present or have a record, in registry order."""
    stems = (path.stem for path in sorted(home().glob("*.json")))
    recorded = [stem for stem in stems if read_install_record(stem) is not None]
    single = [entry.name for entry in MODELS.values() if not entry.is_set]
    known = [name for name in single if installed_path(name).is_file() or name in recorded]
    return [*known, *(name for name in recorded if name not in MODELS)]


def verify(name: str) -> VerifyStatus:
    """Compare an installed file's checksum with its record, or nano's with the registry.

    Raises:
        WeightsError: The file cannot be read.
    """
    path = installed_path(name)
    record = read_install_record(name)
    expected = MODELS[name].sha256 if name == BUNDLED_MODEL else record and record.sha256
    if not path.is_file():
        return "missing"
    if expected is None:
        return "unrecorded"
    try:
        return "ok" if sha256(path) == expected else "differs"
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def remove(name: str) -> list[Path]:
    """Delete an installed model and its record, and return the deleted files.

    Of a set, the members that other installed models need are kept.

    Raises:
        UsageError: The model comes with the package.
        WeightsError: The model is not installed.
    """
    paths = files_to_remove(name)
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


def files_to_remove(name: str) -> list[Path]:
    """Return the files that `remove` would delete, and raise the errors that it would raise."""
    if name == BUNDLED_MODEL:
        raise UsageError(f"{BUNDLED_MODEL}: comes with the package and cannot be removed")
    names = members(name)
    files = {each: [installed_path(each), record_path(each)] for each in names}
    if not any(path.is_file() for paths in files.values() for path in paths):
        raise WeightsError(f"{name}: not installed; there is nothing to remove")
    kept = members_to_keep(name)
    return [path for each in names if each not in kept for path in files[each] if path.is_file()]


def members_to_keep(name: str) -> list[str]:
    """Return the members of a set that other installed models need; `remove` keeps them."""
    names = members(name)
    others = [each for each in installed_models() if each not in names and not MODELS[each].is_set]
    needed = {model.name for other in others for model in with_needs(other)}
    is_set = names != [name]
    return [each for each in names if is_set and each in needed and installed_path(each).is_file()]
