"""Atomic writing: results are written beside their target and renamed when they are complete.

An interrupted or failed run leaves no partial file, no partial folder and no empty parent folders.
What a killed run leaves is removed by the next one that writes into the folder.
"""

import errno
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

from av2tsam_cli.errors import Av2tsamError, UsageError

FIXES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free space in your disk quota",
    errno.EFBIG: "use a file system and limits that allow larger files",
    errno.EACCES: "check the folder's permissions",
    errno.EPERM: "check the folder's permissions",
    errno.EROFS: "use a file system that is not read-only",
}
"""What to do about an error number of the operating system."""
OTHER_FIX = "check the folder and its permissions"
OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, written in Rust, reports an error number: only in its message."""

PART_NAME = re.compile(r"\.av2tsam-([0-9a-f]{12})-(\d+)-[0-9a-f]{12}\.part")
"""The name of an unfinished output: where its process runs (see `_process_space`) and its number,
by which other processes tell whether it is still being written."""


@contextmanager
def write_errors(
    target: Path,
    *,
    raises: type[Av2tsamError] = Av2tsamError,
    catch: tuple[type[Exception], ...] = (),
    hint: str = "or choose another output path",
) -> Iterator[None]:
    """Turn errors of writing into one line: the target, the cause and how to fix it.

    Args:
        target: The file or folder named in the message.
        raises: The error to raise.
        catch: What to convert besides `OSError`, such as the errors of an encoder.
        hint: Ends the sentence after the fix, such as "or set AV2TSAM_HOME to another folder".

    Raises:
        Av2tsamError: Or `raises`: the disk is full, a quota or limit was reached, permission was
            denied, or the encoder failed.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *catch)
    try:
        yield
    except kinds as error:
        reason = getattr(error, "strerror", None) or str(error)
        in_text = OS_ERROR.search(reason)
        number = int(in_text[1]) if in_text else getattr(error, "errno", None)
        fix = FIXES.get(number or 0, OTHER_FIX)
        raise raises(f"{target}: cannot be written ({reason}); {fix}, {hint}") from error


@contextmanager
def atomic_file(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file that appears under its name only when it is complete.

    Missing parent folders are created, and removed again if the block fails.

    Args:
        target: The file.
        overwrite: Whether an existing file is replaced.

    Yields:
        A path in the target's folder to write to. It does not exist yet.

    Raises:
        Av2tsamError: The target exists at the end of the block and `overwrite` is not set.
        OSError: A folder or the file cannot be created; see `write_errors`.
    """
    with parent_folders(target):
        remove_dead_parts(target.parent)
        part = temporary_path(target)
        try:
            yield part
            _check_free(target, overwrite=overwrite)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Fill a folder that appears under its name only when it is complete.

    Missing parent folders are created, and removed again if the block fails.

    Args:
        target: The folder.
        overwrite: Whether an existing folder is replaced, with everything in it.

    Yields:
        An empty folder beside the target.

    Raises:
        Av2tsamError: The target exists at the end of the block and `overwrite` is not set.
        OSError: A folder cannot be created or renamed; see `write_errors`.
    """
    with parent_folders(target):
        remove_dead_parts(target.parent)
        part = temporary_path(target)
        part.mkdir()
        try:
            yield part
            _check_free(target, overwrite=overwrite)
            _replace_folder(part, target)
        finally:
            if part.exists():
                shutil.rmtree(part)


@contextmanager
def parent_folders(target: Path) -> Iterator[None]:
    """Create the missing parent folders of a path; at the end, remove those that stayed empty.

    Raises:
        OSError: A folder cannot be created.
    """
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for folder in missing:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def check_new_file(path: Path, *, overwrite: bool, suffix: str = "") -> None:
    """Check before the work starts that a file can be written and replaces none unintentionally.

    Args:
        path: The file.
        overwrite: Whether an existing file may be replaced.
        suffix: The suffix that it must have, such as `.png`; "" for any.

    Raises:
        UsageError: The suffix differs, the folder does not exist, the path is a folder, or it
            exists and `overwrite` is not set.
    """
    if suffix and path.suffix.lower() != suffix:
        raise UsageError(f"{path}: not a {suffix} file; use that suffix")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; create it")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; use the name of a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: already exists; set `overwrite` to replace it")


def check_writable(target: Path) -> None:
    """Check that a path can be created, missing parent folders included; leave nothing behind.

    Raises:
        UsageError: It cannot.
    """
    with write_errors(target, raises=UsageError), parent_folders(target):
        trial = temporary_path(target)
        trial.touch(exist_ok=False)
        trial.unlink()


def temporary_path(target: Path) -> Path:
    """Return a new hidden name in the target's folder, so that renaming never copies."""
    owner = f"{_process_space() or '0' * 12}-{os.getpid()}"
    return target.parent / f".av2tsam-{owner}-{uuid4().hex[:12]}.part"


@cache
def remove_dead_parts(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder, once per process and folder.

    Parts of other computers and containers are kept: whether they are still written is unknown.
    """
    space = _process_space()
    if space is None:
        return
    with suppress(OSError):  # the folder cannot be listed
        for entry in os.scandir(folder):
            name = PART_NAME.fullmatch(entry.name)
            if name and name[1] == space and not _is_running(int(name[2])):
                with suppress(OSError):  # another process removed it, or it may not be removed
                    _remove(entry)


def _remove(entry: "os.DirEntry[str]") -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        Path(entry.path).unlink()


@cache
def _process_space() -> str | None:
    """Return what identifies the processes among which a number is unique; None if unknown.

    It differs between computers, containers and starts of a computer.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return None
    text = "\n".join((platform.node(), boot, namespace))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _check_free(target: Path, *, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(target):
        raise Av2tsamError(
            f"{target}: created by another program in the meantime; set `overwrite` to replace it"
        )


def _replace_folder(part: Path, target: Path) -> None:
    """Rename a folder, replacing the target if it exists."""
    if not target.is_dir():
        part.rename(target)
        return
    # A folder cannot be renamed onto a non-empty one: move the old one aside first.
    old = temporary_path(target).with_suffix(".old")  # not removed if this process is killed now
    target.rename(old)
    try:
        part.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)
