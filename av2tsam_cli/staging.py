"""Local copies of files in stores, and outputs before their upload, in a folder of this process.

It only holds the current input, the next one, and the outputs of the current input. The folder is
removed at the end; if the process is killed, the next one removes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from uuid import uuid4

from av2tsam_cli import stores
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.files import LARGEST_TEXT, remove, remove_dead_parts, temporary_path
from av2tsam_cli.network import NetworkPath, is_stored, url_of

LONGEST_NAME = 100
"""Most characters in the name of a copy."""
ENDS = 4096
"""Bytes at each end of a large file that are enough to tell whether it is a result."""
PICTURES = (".png", ".jpg")
"""Suffixes of files whose content is not needed to check whether a result is complete."""


def default_folder() -> Path:
    """Return the default folder for copies."""
    return Path(tempfile.gettempdir())


class Staging:
    """The folder of this process for local copies; it is created when it is needed."""

    def __init__(self, parent: Path | None = None) -> None:
        """Set where copies are stored.

        Args:
            parent: Where the folder is created; None for the system's temporary folder.
        """
        self._parent = parent or default_folder()
        self._created: Path | None = None
        self._closed = False
        self._lock = Lock()

    def close(self) -> None:
        """Cancel downloads, and remove the folder."""
        with self._lock:
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
                self._created = temporary_path(self._parent / "staging")
                self._created.mkdir()
            except OSError as error:
                self._created = None
                raise Av2tsamError(
                    f"{self._parent}: cannot store copies ({error.strerror}); set `staging` to "
                    "another folder"
                ) from error
        return self._created

    def fetch(self, source: Path) -> Path:
        """Copy a file to this computer if it is in a store, and return its path.

        Raises:
            UsageError: There is no such file.
            Av2tsamError: The store cannot be reached, or denies access, or the disk is full.
        """
        if not is_stored(source):
            return source
        url = str(source)
        known = stores.look_up(url)
        with self._lock:
            if self._closed:  # in the meantime; nothing would remove another folder
                raise Av2tsamError(f"{url}: not copied, because the command has ended")
            folder = self._folder / uuid4().hex[:12]
            folder.mkdir(parents=True)
        copy = folder / source.name[-LONGEST_NAME:]
        try:
            self._check_space(url, known.size)
            stores.download(url, copy, size=known.size, go_on=lambda: not self._closed)
        except OSError as error:
            self.drop(copy)
            raise self._no_space(url, str(error.strerror)) from error
        except BaseException:
            self.drop(copy)
            raise
        return NetworkPath.of(url).at(copy, known.version)

    def _check_space(self, url: str, needed: int | None) -> None:
        free = shutil.disk_usage(self._parent).free
        if needed is not None and needed > free:
            raise self._no_space(url, f"{_size(needed)} needed, {_size(free)} free")

    def _no_space(self, url: str, reason: str) -> Av2tsamError:
        return Av2tsamError(
            f"{url}: not enough space for a copy in {self._parent} ({reason}); free disk space, or "
            "set `staging` to another folder"
        )

    def drop(self, source: Path) -> None:
        """Remove the copy of a file, if there is one."""
        if self._contains(source):
            remove(source.parent)
            self._remove_empty_parents(source.parent)

    def local_path(self, output: Path) -> Path:
        """Return the path to write an output to before its upload; unchanged without a URL."""
        url = url_of(output)
        if url is None:
            return output
        return NetworkPath.of(url).at(self._folder / "out" / os.fspath(output))

    def _contains(self, path: Path) -> bool:
        return self._created is not None and self._created in path.parents

    def mirror(self, output: Path) -> None:
        """Create local files that represent what the store has at the URL of an output.

        They have the names of the files in the store, and enough of their content to tell whether
        they are results. If the upload of a folder was interrupted, the local folder is empty.

        Raises:
            Av2tsamError: The store cannot be reached, or denies access.
        """
        from av2tsam_cli.outputs.record import RECORD_NAME

        if not self._contains(output):
            return
        kind = stores.kind_of(str(output))
        if kind is None:
            return
        with self._lock:  # another thread may remove empty parents
            output.parent.mkdir(parents=True, exist_ok=True)
            if kind == "file":
                output.touch()
                return
            output.mkdir(exist_ok=True)
        files = stores.list_folder(str(output))
        if stores.UNFINISHED_NAME in files and RECORD_NAME not in files:
            return
        for name, size in files.items():
            path = output / name.replace(os.pardir, "_").lstrip("/")  # stays in the folder
            path.parent.mkdir(parents=True, exist_ok=True)
            if url_of(path) != f"{output}/{name}" or path.suffix in PICTURES:
                path.touch()
            elif name != stores.UNFINISHED_NAME:
                _copy_ends(path, size)

    def publish(self, output: Path) -> None:
        """Upload an output that has a URL, and remove the local copy.

        Raises:
            Av2tsamError: The store cannot be reached, or denies access.
        """
        from av2tsam_cli.outputs.record import RECORD_NAME

        if not self._contains(output):
            return
        if output.is_dir():
            stores.upload_folder(Path(os.fspath(output)), str(output), last=RECORD_NAME)
        else:
            stores.upload_file(output, str(output))
        self.discard(output)

    def discard(self, output: Path) -> None:
        """Remove the local copy of an output that has a URL."""
        if self._contains(output):
            remove(output)
            self._remove_empty_parents(output)

    def _remove_empty_parents(self, path: Path) -> None:
        """Remove empty folders now, because this process can be killed while it waits.

        Only the ones that contained `path`: another thread may have just created the others.
        """
        with self._lock:
            for folder in Path(os.fspath(path)).parents:
                if self._created in (folder, *folder.parents):
                    with suppress(OSError):  # it is not empty
                        folder.rmdir()


def _copy_ends(path: Path, size: int) -> None:
    """Copy a file from a store; of a large file, only both ends, with a gap that takes no space."""
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
    """Yield the path of a file on this computer; a copy is removed at the end of the block.

    Args:
        source: A file, or a URL.
        folder: See `Staging`.
    """
    with closing(Staging(folder)) as staging:
        yield staging.fetch(source)
