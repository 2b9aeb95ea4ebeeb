"""What is installed: every file with a record of where it came from, and its checksum."""

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

from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.hub.locate import PACKAGED, home, place
from av2tsam_cli.hub.registry import MODELS, TOKENIZER, NamedModel

if TYPE_CHECKING:  # torch takes seconds to import, and what is installed is known without it
    import torch

    from av2tsam_cli.hub.convert import ConversionReport
    from av2tsam_cli.model.config import ProjectorKind

Status = Literal["ok", "differs", "missing", "unrecorded"]

TOKENIZER_SUFFIXES = (".spm", ".model")
"""Of SentencePiece's files, which are copied as they are."""


@dataclass(frozen=True)
class Source:
    """The public file that something was made from."""

    file: str
    """Its path in the repository, or on this machine where it was converted by hand."""
    sha256: str | None
    """Of its bytes; None for a folder of shards."""
    repository: str | None = None
    """On the Hugging Face hub; None where it was converted by hand."""
    revision: str | None = None
    """Commit of the repository."""


@dataclass(frozen=True)
class Record:
    """What is written beside an installed file, as NAME.json."""

    name: str
    """Name of the model."""
    sha256: str
    """Of the installed file."""
    bytes: int
    """Size of the installed file."""
    source: Source
    """What it was made from."""
    date: str
    """When, in UTC (ISO 8601)."""
    tool: str
    """Version that made it."""


@dataclass(frozen=True)
class Installed:
    """What an installation made."""

    path: Path
    """The installed file."""
    record: Record
    """What is remembered of it."""
    report: ConversionReport | None
    """What the conversion did; None for a tokenizer."""


def install(
    path: Path,
    source: Source,
    *,
    wanted: NamedModel | None = None,
    overwrite: bool = False,
    projector: ProjectorKind = "mul",
    dtype: torch.dtype | None = None,
) -> Installed:
    """Convert a public file and put it, with its record, where models are looked for.

    Args:
        path: What was published: a checkpoint, or the tokenizer's SentencePiece model.
        source: Where it came from.
        wanted: What it is expected to be; None takes whatever it is recognised as.
        overwrite: Whether an installed file of that name is replaced.
        projector: As `convert.convert` takes it.
        dtype: As `convert.convert` takes it.

    Raises:
        WeightsError: If it is damaged, unknown or something else than expected, or if it cannot
            be written. What was installed before stays.
        UsageError: If a file of that name is installed and may not be replaced.
    """
    if path.suffix in TOKENIZER_SUFFIXES:
        return _install_tokenizer(path, source, wanted=wanted, overwrite=overwrite)
    from av2tsam_cli.hub.convert import prepare

    config = wanted.config if wanted else None
    conversion = prepare(path, config=config, projector=projector)
    name = conversion.report.name
    _check_name(path, name, wanted, overwrite=overwrite)
    with _staged(name) as staged:
        conversion.write(staged, dtype=dtype)
        record = _publish(name, staged, source)
    return Installed(place(name), record, conversion.report)


def _install_tokenizer(
    path: Path, source: Source, *, wanted: NamedModel | None, overwrite: bool
) -> Installed:
    from av2tsam_cli.model.text import SentencePieceTokenizer

    SentencePieceTokenizer.read(path)
    _check_name(path, TOKENIZER, wanted, overwrite=overwrite)
    with _staged(TOKENIZER) as staged:
        shutil.copyfile(path, staged)
        record = _publish(TOKENIZER, staged, source)
    return Installed(place(TOKENIZER), record, None)


def _check_name(path: Path, name: str, wanted: NamedModel | None, *, overwrite: bool) -> None:
    """Refuse what is not what was asked for, or what would replace something unasked."""
    if wanted is not None and wanted.name != name:
        raise WeightsError(f"{path}: holds {name}, not {wanted.name}")
    if name == PACKAGED:
        raise UsageError(f"{path}: {PACKAGED} comes with the package; name a file with --out")
    if place(name).exists() and not overwrite:
        raise UsageError(f"{place(name)}: is there already; pass --overwrite to replace it")


@contextmanager
def _staged(name: str) -> Iterator[Path]:
    """A name beside the installed file's, for as long as it is not finished."""
    path = place(name).with_name(f".{name}.part")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing into one line.

    Raises:
        WeightsError: The disk is full or the place is not writable.
    """
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{path.parent}: cannot be written ({error.strerror or error}); free some space or "
            "set AV2TSAM_HOME to another place, then run again"
        ) from error


def _publish(name: str, staged: Path, source: Source) -> Record:
    """Give a finished file its name, and write its record beside it."""
    record = Record(
        name=name,
        sha256=sha256(staged),
        bytes=staged.stat().st_size,
        source=source,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        tool=f"av2tsam {version('av2tsam')}",
    )
    note = staged.with_name(f".{name}.json.part")
    try:
        note.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        staged.replace(place(name))
        note.replace(record_path(name))
    finally:
        note.unlink(missing_ok=True)
    return record


def sha256(path: Path) -> str:
    """Checksum of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_path(name: str) -> Path:
    """Where the record of an installed file is."""
    return home() / f"{name}.json"


def read_record(name: str) -> Record | None:
    """The record of an installed file; None if there is none, or none that can be read."""
    try:
        values = json.loads(record_path(name).read_text(encoding="utf-8"))
        return Record(**{**values, "source": Source(**values["source"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def names() -> list[str]:
    """Names of all that is installed or was recorded as such, the registry's order first."""
    stems = (path.stem for path in sorted(home().glob("*.json")))
    recorded = [stem for stem in stems if read_record(stem) is not None]
    here = [name for name in MODELS if place(name).is_file() or name in recorded]
    return [*here, *(name for name in recorded if name not in MODELS)]


def verify(name: str) -> Status:
    """Read an installed file anew and compare it with its record, or nano with the registry.

    Raises:
        WeightsError: If the file cannot be read.
    """
    path = place(name)
    record = read_record(name)
    expected = MODELS[name].sha256 if name == PACKAGED else record and record.sha256
    if not path.is_file():
        return "missing"
    if expected is None:
        return "unrecorded"
    try:
        return "ok" if sha256(path) == expected else "differs"
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def remove(name: str) -> list[Path]:
    """Delete an installed file and its record.

    Returns:
        What was deleted.
    """
    paths = removable(name)
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


def removable(name: str) -> list[Path]:
    """What `remove` would delete.

    Raises:
        UsageError: If the model comes with the package.
        WeightsError: If it is not installed.
    """
    if name == PACKAGED:
        raise UsageError(f"{PACKAGED} comes with the package and cannot be removed")
    paths = [path for path in (place(name), record_path(name)) if path.is_file()]
    if not paths:
        raise WeightsError(f"{name} is not installed; there is nothing to remove")
    return paths
