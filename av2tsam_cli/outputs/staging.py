"""Written beside its target, renamed at the end: nobody ever sees half a result."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import av

from av2tsam_cli.errors import Av2tsamError

MENDS = {
    errno.ENOSPC: "free space on the disk, or choose another place with --out",
    errno.EDQUOT: "free space in your quota, or choose another place with --out",
    errno.EFBIG: "the file system or a limit forbids larger files; choose another place with --out",
}
OTHER_MEND = "check the folder's permissions, or choose another place with --out"


def staging_path(target: Path) -> Path:
    """A new hidden name in the target's folder, so that renaming it stays on one file system."""
    return target.parent / f".av2tsam-{uuid4().hex[:12]}.part"


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn what goes wrong while writing a target into one line.

    Raises:
        Av2tsamError: The disk is full, the place is not writable, or the encoder gave up.
    """
    try:
        yield
    except (OSError, av.FFmpegError) as error:
        reason = error.strerror or str(error)
        mend = MENDS.get(error.errno or 0, OTHER_MEND)
        raise Av2tsamError(f"{target}: cannot be written ({reason}); {mend}") from error


def make_folders(folder: Path) -> list[Path]:
    """Make a folder and its missing parents; returns those that were made, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def remove_if_empty(folders: list[Path]) -> None:
    """Remove folders that were made for a result which did not come, innermost first."""
    for folder in reversed(folders):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def publish(part: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished file or folder its name.

    Raises:
        Av2tsamError: Something of that name has come to be and may not be replaced.
    """
    if target.exists() and not overwrite:
        raise Av2tsamError(f"{target}: was made by something else meanwhile; pass --overwrite")
    if not target.is_dir():
        part.replace(target)
        return
    # A folder cannot be renamed onto a full one: move the old one aside first.
    old = staging_path(target)
    target.rename(old)
    try:
        part.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def discard(part: Path) -> None:
    """Remove what was written so far, if anything was."""
    if part.is_dir():
        shutil.rmtree(part)
    elif os.path.lexists(part):
        part.unlink()
