"""Copies of files from stores, and outputs on their way there, in a folder of this process.

At the same time, there are only the inputs at work, the next one, and the outputs of those at work.
The folder is removed at the end. That of a process that was killed is removed by the next one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self
from uuid import uuid4

from av2tsam_cli import stores
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import LARGEST_TEXT, remove, remove_dead_parts, temporary_path
from av2tsam_cli.network import NetworkPath, is_stored, url_of

LONGEST_NAME = 100
"""Most characters of the name of a copy."""
ENDS = 4096
"""Bytes at both ends of a large file that are looked at, to tell whether it is a result."""
PICTURES = (".png", ".jpg")
"""Suffixes of files of results whose content does not matter."""


def default_folder() -> Path:
    """Return the folder in which copies are made unless another one is chosen."""
    return Path(tempfile.gettempdir())


class Staging:
    """The folder of a process for copies; it is created when it is needed."""

    def __init__(self, parent: Path | None = None) -> None:
        """Prepare to copy.

        Args:
            parent: Where the folder is created; None for the system's folder for temporary files.
        """
        self._parent = parent or default_folder()
        self._created: Path | None = None
        self._closed = False
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder, and give up downloads."""
        self._closed = True
        stores.give_up()
        if self._created is not None:
            shutil.rmtree(self._created, ignore_errors=True)

    @property
    def _folder(self) -> Path:
        if self._created is None:
            try:
                self._parent.mkdir(parents=True, exist_ok=True)
                remove_dead_parts(self._parent)
                folder = temporary_path(self._parent / "staging")
                folder.mkdir()
            except OSError as error:
                raise Av2tsamError(
                    f"{self._parent}: cannot hold copies ({error.strerror}); set `staging` to "
                    "another folder"
                ) from error
            self._created = folder
        return self._created

    def fetch(self, source: Path) -> Path:
        """Return a file with a copy on this computer; itself if it needs none.

        Raises:
            UsageError: There is no such file.
            Av2tsamError: The store cannot be reached, or refuses, or the disk is full.
        """
        if not is_stored(source):
            return source
        url = str(source)
        known = stores.look_up(url)
        folder = self._folder / uuid4().hex[:12]
        free = shutil.disk_usage(self._parent).free
        if known.size is not None and known.size > free:
            raise self._no_room(url, f"{_size(known.size)} to copy, {_size(free)} are free")
        with self._lock:
            folder.mkdir(parents=True)
        copy = folder / source.name[-LONGEST_NAME:]
        try:
            stores.download(url, copy, size=known.size, go_on=lambda: not self._closed)
        except OSError as error:
            self.drop(copy)
            raise self._no_room(url, str(error.strerror)) from error
        except BaseException:
            self.drop(copy)
            raise
        return NetworkPath.of(url).at(copy, known.version)

    def _no_room(self, url: str, reason: str) -> Av2tsamError:
        return Av2tsamError(
            f"{url}: no room for a copy in {self._parent} ({reason}); free disk space, or set "
            "`staging` to another folder"
        )

    def drop(self, source: Path) -> None:
        """Remove the copy of a file, if there is one."""
        if self._has(source):
            remove(source.parent)
            self._tidy()

    def local(self, output: Path) -> Path:
        """Return where an output is written before it is uploaded; itself for a local output."""
        url = url_of(output)
        if url is None:
            return output
        return NetworkPath.of(url).at(self._folder / "out" / os.fspath(output))

    def _has(self, path: Path) -> bool:
        return self._created is not None and self._created in path.parents

    def mirror(self, output: Path) -> None:
        """Show what a store has under the URL of a local output.

        Files get their name, and as much of their content as tells whether they are results. A
        folder whose upload was interrupted is shown empty.

        Raises:
            Av2tsamError: The store cannot be reached, or refuses.
        """
        from av2tsam_cli.outputs.record import RECORD_NAME

        if not self._has(output):
            return
        kind = stores.kind_of(str(output))
        if kind is None:
            return
        if kind == "file":
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
            return
        output.mkdir(parents=True, exist_ok=True)
        files = stores.list_folder(str(output))
        if stores.UNFINISHED_NAME in files and RECORD_NAME not in files:
            return
        for name, size in files.items():
            path = output / name.replace(os.pardir, "_").lstrip("/")  # nowhere else
            path.parent.mkdir(parents=True, exist_ok=True)
            if url_of(path) != f"{output}/{name}" or path.suffix in PICTURES:
                path.touch()
            elif name != stores.UNFINISHED_NAME:
                _copy_ends(path, size)

    def publish(self, output: Path) -> None:
        """Upload an output, if it is to be uploaded, and remove it here.

        Raises:
            Av2tsamError: The store cannot be reached, or refuses.
        """
        from av2tsam_cli.outputs.record import RECORD_NAME

        if not self._has(output):
            return
        if output.is_dir():
            stores.upload_folder(Path(os.fspath(output)), str(output), last=RECORD_NAME)
        else:
            stores.upload_file(output, str(output))
        self.discard(output)

    def discard(self, output: Path) -> None:
        """Remove what is here of an output that is to be uploaded, or that was looked at."""
        if self._has(output):
            remove(output)
            self._tidy()

    def _tidy(self) -> None:
        """Remove folders that became empty: a process that waits can be killed at any time."""
        with self._lock:
            for folder, _, _ in os.walk(str(self._created), topdown=False):
                with suppress(OSError):  # it is not empty
                    os.rmdir(folder)  # noqa: PTH106 - a string


def _copy_ends(path: Path, size: int) -> None:
    """Copy a file of a store; of a large one only both ends, as what is between takes no room."""
    if size <= LARGEST_TEXT:
        path.write_bytes(stores.read(str(path)))
        return
    with path.open("wb") as file:
        file.write(stores.read(str(path), 0, ENDS))
        file.seek(size - ENDS)
        file.write(stores.read(str(path), size - ENDS, size))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


@contextmanager
def staged(source: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a file with a copy on this computer, which is removed at the end; see `Staging.fetch`.

    Args:
        source: A file, or a URL.
        folder: See `Staging`.
    """
    with Staging(folder) as staging:
        yield staging.fetch(source)
