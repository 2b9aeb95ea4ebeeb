"""Atomic writing: results are written beside their target, and renamed when they are complete.

An interrupted or failed run leaves no partial files or folders, and no empty parent folders. After
a killed run, the target is the old or the complete new result; its temporary files are removed by
the next run that writes into the folder.

As with cp and FFmpeg, writing does not wait until the data is on the disk (fsync): after a power
failure, results of the last seconds can be incomplete.
"""

import ctypes
import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

from av2tsam_cli.errors import NOT_A_FILE, Av2tsamError, UsageError
from av2tsam_cli.network import url_of

FIXES = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free space in your disk quota",
    errno.EFBIG: "use a file system and limits that allow larger files",
    errno.EACCES: "check the folder's permissions",
    errno.EPERM: "check the folder's permissions",
    errno.EROFS: "use a file system that is not read-only",
}
"""Advice for error numbers of the operating system."""
OTHER_FIX = "check the folder and its permissions"
OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""An error number in a message of safetensors, which is written in Rust."""

SAMPLES, SAMPLE_BYTES = 16, 1 << 16
"""Number and length of the parts of a file that are hashed to identify its content."""
ID_DIGITS = 16
"""Hexadecimal digits of a hash that identifies content."""
LARGEST_TEXT = 2**20
"""Limit of the bytes of text files, such as options or a vocabulary."""

MAX_ATTEMPTS = 20
"""Attempts to create something in a folder that other processes may remove."""
PART_NAME = re.compile(
    r"\.av2tsam-(?P<host>[0-9a-f]{8})-(?P<namespace>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{12}"
    r"\.(part|old)"
)
"""The name of an unfinished output, or of a folder that is being replaced. It contains the host and
the PID namespace (see `_Scope`) and the ID of its process, so that other processes can tell whether
that is still running."""

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Constants of Linux for `renameat2`."""


@contextmanager
def write_errors(
    target: Path,
    *,
    raises: type[Av2tsamError] = Av2tsamError,
    catch: tuple[type[Exception], ...] = (),
    hint: str = "",
) -> Iterator[None]:
    """Turn write errors into one line: the target, the cause and how to fix it.

    Args:
        target: The file or folder to name in the message.
        raises: The error to raise.
        catch: Errors to convert besides `OSError`, such as the errors of an encoder.
        hint: End of the message, such as "or set AV2TSAM_HOME to another folder"; "" to suggest
            another output path, or another `staging` folder if the target is to be uploaded.

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
        if not hint:
            other = "choose another output path"
            hint = f"or {'set `staging` to another folder' if url_of(target) else other}"
        raise raises(f"{target}: cannot be written ({reason}); {fix}, {hint}") from error


@contextmanager
def atomic_file(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file that gets its name only when it is complete.

    Missing parent folders are created, and removed again if the block fails.

    Args:
        target: The file.
        overwrite: Whether an existing file is replaced.

    Yields:
        The path of an empty file in the target's folder, to write to.

    Raises:
        Av2tsamError: The target exists at the end of the block and `overwrite` is not set.
        OSError: A folder or the file cannot be created; see `write_errors`.
    """
    with parent_folders(target):
        remove_dead_parts(target.parent)
        part = temporary_path(target)
        try:
            _create(part, Path.touch)
            yield part
            _check_free(target, overwrite=overwrite)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Fill a folder that gets its name only when it is complete.

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
        try:
            _create(part, Path.mkdir)
            yield part
            _check_free(target, overwrite=overwrite)
            _replace_folder(part, target)
        finally:
            remove(part)


@contextmanager
def parent_folders(target: Path) -> Iterator[None]:
    """Create the missing parent folders of a path; at the end, remove those that are empty.

    Raises:
        OSError: A folder cannot be created.
    """
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        _create(target, lambda _: None)
        yield
    finally:
        for folder in missing:
            with suppress(OSError):  # not empty, or removed by another process
                folder.rmdir()


def _create(path: Path, create: Callable[[Path], None]) -> None:
    """Create something in a folder that other processes may remove while it is empty.

    Raises:
        OSError: It cannot be created.
    """
    for _ in range(MAX_ATTEMPTS):
        with suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            create(path)
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    create(path)


def check_new_file(path: Path, *, overwrite: bool, suffix: str = "") -> None:
    """Check before processing that a file can be written, and would not replace one by mistake.

    Args:
        path: The file.
        overwrite: Whether an existing file may be replaced.
        suffix: The required suffix, such as `.png`; "" for any.

    Raises:
        UsageError: The suffix is wrong, the folder does not exist, the path is a folder, or the
            file exists and `overwrite` is not set.
    """
    if suffix and path.suffix.lower() != suffix:
        raise UsageError(f"{path}: not a {suffix} file; use that suffix")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: the folder {path.parent} does not exist; create it")
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; use the name of a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: already exists; set `overwrite` to replace it")


def is_special(path: Path) -> bool:
    """Return whether a path is a pipe or a device, which might block or have no end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def read_text_file(path: Path, *, raises: type[Av2tsamError] = UsageError) -> bytes:
    """Return the content of a text file, such as options or a vocabulary.

    Raises:
        UsageError: Or `raises`: the file is a pipe or a device, or too large.
        OSError: The file cannot be read.
    """
    if is_special(path):
        raise raises(f"{path}: {NOT_A_FILE}")
    with path.open("rb") as file:
        content = file.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise raises(f"{path}: larger than {LARGEST_TEXT >> 20} MiB; pass a file of text")
    return content


def content_id(*paths: Path) -> str:
    """Return a hash of the sizes of files and of samples of their content, 16 hexadecimal digits.

    It does not depend on names and times. Because only samples of large files are read, it misses
    changes between the samples that keep the size.

    Raises:
        OSError: A file cannot be read.
    """
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            found.update(size.to_bytes(8, "little"))
            step = max(SAMPLE_BYTES, -(-size // SAMPLES))
            for begin in (*range(0, size, step), max(0, size - SAMPLE_BYTES)):
                file.seek(begin)
                found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()[:ID_DIGITS]


def text_id(text: str) -> str:
    """Return a hash of a text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:ID_DIGITS]


def output_name(source: Path) -> str:
    """Return the default name of the output for an input, without a suffix."""
    return source.stem if source.stem.strip(".") else source.name  # "...mp4" would be ".."


def place_file(out: Path, name: Path | str, suffixes: Sequence[str], suffix: str = "") -> Path:
    """Return the file for an input: `out` itself, or a file in that folder.

    Args:
        out: A file name with a known suffix, or a folder.
        name: Path of the file in the folder, without a suffix.
        suffixes: The known suffixes, such as `.csv`.
        suffix: Suffix of a file in the folder; "" for the first known one.
    """
    if out.suffix.lower() in suffixes and not out.is_dir():
        return out
    return out / f"{name}{suffix or suffixes[0]}"


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check before processing that a path is free or may be replaced, and can be written.

    Raises:
        UsageError: The path exists and may not be replaced, or cannot be written.
    """
    if os.path.lexists(path) and not overwrite:
        raise UsageError(
            f"{path}: already exists; set `overwrite` to replace it, or choose another path"
        )
    check_writable(path)


def check_writable(target: Path) -> None:
    """Check that a path and its missing parent folders can be created, without leaving them.

    Raises:
        UsageError: The path cannot be created.
    """
    with write_errors(target, raises=UsageError), parent_folders(target):
        trial = temporary_path(target)
        try:
            _create(trial, Path.touch)
        finally:  # also if it is interrupted
            trial.unlink(missing_ok=True)


def temporary_path(target: Path) -> Path:
    """Return a new hidden path in the target's folder, so that renaming it never copies."""
    scope = _process_scope() or _Scope("0" * 8, "0" * 8)
    owner = f"{scope.host}-{scope.namespace}-{os.getpid()}"
    return target.parent / f".av2tsam-{owner}-{uuid4().hex[:12]}.part"


@cache
def remove_dead_parts(folder: Path) -> None:
    """Remove unfinished outputs of killed processes from a folder, once per process and folder.

    If a process was killed while it replaced a folder, the old folder gets its name back. Outputs
    of other computers and containers are kept, because these may still be writing them.
    """
    scope = _process_scope()
    if scope is None:
        return
    with suppress(OSError):  # the folder cannot be listed
        for path in [Path(entry.path) for entry in os.scandir(folder)]:
            name = PART_NAME.fullmatch(path.name)
            with suppress(OSError):  # removed by another process, or not ours to remove
                if name and _is_dead(path, name, scope):
                    if path.suffix == ".old":
                        _restore(path)
                    remove(path)


def remove_newly_dead_parts(folders: Iterable[Path]) -> None:
    """Remove unfinished outputs of killed processes, including those killed since the last call."""
    remove_dead_parts.cache_clear()
    for folder in folders:
        remove_dead_parts(folder)


def has_parts(folder: Path) -> bool:
    """Return whether a folder contains unfinished outputs."""
    return folder.is_dir() and any(PART_NAME.fullmatch(name) for name in os.listdir(folder))  # noqa: PTH208 - fast


def _is_dead(path: Path, name: "re.Match[str]", scope: "_Scope") -> bool:
    """Return whether the process that wrote an unfinished output has certainly ended."""
    if name["host"] != scope.host:
        return False
    if name["namespace"] == scope.namespace:
        return not _is_running(int(name["process"]))
    # From another container, or from before this computer started.
    started_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return path.lstat().st_mtime < started_s


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Scope:
    """The scope in which a process ID is unique."""

    host: str
    """Hash of the computer, or of the container if it has its own host name."""
    namespace: str
    """Hash of the PID namespace, and of the last start of the computer."""


@cache
def _process_scope() -> _Scope | None:
    """Return the scope of this process's ID; None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        return None
    machine = Path("/etc/machine-id")
    machine_id = machine.read_text() if machine.is_file() else ""
    return _Scope(_hash(platform.node(), machine_id), _hash(boot, namespace))


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
        # A process that has ended keeps its ID until its parent, or PID 1, has waited for it.
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return state not in {"Z", "X"}


def _check_free(target: Path, *, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(target):
        raise Av2tsamError(
            f"{target}: created by another program in the meantime; set `overwrite` to replace it"
        )


def _replace_folder(part: Path, target: Path) -> None:
    """Rename a folder to the target; an old target may remain under the name of the part."""
    if not os.path.lexists(target):
        part.rename(target)
    elif not _exchange(part, target):
        _move_aside_and_rename(part, target)


def _exchange(part: Path, target: Path) -> bool:
    """Exchange two names atomically; return False where that is not supported.

    Linux supports it on most local file systems.
    """
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # absent from old C libraries
    if rename is None:
        return False
    paths = os.fsencode(part), os.fsencode(target)
    return bool(rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0)


def _move_aside_and_rename(part: Path, target: Path) -> None:
    """Rename a folder; if this process is killed meanwhile, `_restore` restores the old one."""
    aside = temporary_path(target).with_suffix(".old")
    old = aside / target.name
    aside.mkdir()
    try:
        target.rename(old)
        part.rename(target)
    finally:
        _restore(aside)
        remove(aside)


def _restore(aside: Path) -> None:
    """Rename a folder that was moved aside back, unless the new folder has its name."""
    for old in aside.iterdir():
        target = aside.parent / old.name
        if not os.path.lexists(target):
            old.rename(target)
