"""Paths of inputs and outputs with a URL, and of playlists that may open other files.

A file in a store, such as `s3://bucket/clip.mp4`, is processed as a local copy. Its `NetworkPath`
opens the copy, but prints the URL in messages, results and reports.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Generator
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

WEB = ("http", "https")
"""Schemes of URLs that FFmpeg can open directly."""


# `Path` itself can only be subclassed from Python 3.12 on.
class NetworkPath(type(Path())):  # type: ignore[misc]
    """A URL, with or without a local copy, or a file that may open other files and URLs.

    As a path, it is the path of the copy. Without a copy, it is made of the URL without its query.
    """

    url: str | None = None
    """The URL; None for a file."""
    opens_others: bool = False
    """Whether FFmpeg may open the URL directly, and the files and URLs in a playlist."""
    is_copy: bool = False
    """Whether the path is a local copy, or an output that will be uploaded."""
    version: str | None = None
    """A value that changes with the content of the URL; None if unknown."""

    @classmethod
    def of(cls, word: str | Path, *, opens_others: bool = False) -> NetworkPath:
        """Create the path for a URL, or for the path of a file."""
        url = str(word)
        if not is_url(url):
            path = cls(word)
        else:
            parts = urlsplit(url)
            name = unquote(parts.path) if parts.scheme in WEB else url.partition("://")[2]
            host = f"{parts.scheme}:/{parts.netloc if parts.scheme in WEB else ''}"
            path = cls(f"{host}/{name.strip('/') or 'video'}")
            path.url = url
        path.opens_others = opens_others
        return path

    def at(self, copy: Path, version: str | None = None) -> NetworkPath:
        """Return this URL with a local copy."""
        path = NetworkPath(copy)
        path.url, path.version, path.is_copy = self.url, version, True
        return path

    def __str__(self) -> str:
        return self.url or str(super().__str__())

    def __fspath__(self) -> str:
        return str(super().__str__())

    def __eq__(self, other: object) -> bool:
        if self.url is None:
            return bool(super().__eq__(other))
        return isinstance(other, NetworkPath) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url) if self.url is not None else super().__hash__()

    def __truediv__(self, key: str | PurePath) -> NetworkPath:
        below: NetworkPath = super().__truediv__(key)
        if self.url is not None:
            inside = PurePath(key).as_posix()
            below.url = self.url if inside == "." else f"{self.url.rstrip('/')}/{inside}"
            below.is_copy = self.is_copy
        return below

    def __reduce__(self) -> tuple[Any, tuple[str, dict[str, Any]]]:
        """Return how to copy and pickle the path; `Path.__reduce__` would lose the URL."""
        return _restored, (os.fspath(self), dict(vars(self)))

    # In some versions of Python, these methods of `Path` use `str`, which is the URL here.
    def iterdir(self) -> Generator[Path, None, None]:
        """Yield the contents of the local folder."""
        yield from Path(os.fspath(self)).iterdir()

    def glob(self, *args: Any, **options: Any) -> Generator[Path, None, None]:
        """Yield the paths in the local folder that match a pattern."""
        yield from Path(os.fspath(self)).glob(*args, **options)

    def rglob(self, *args: Any, **options: Any) -> Generator[Path, None, None]:
        """Yield the paths in the local folder and its subfolders that match a pattern."""
        yield from Path(os.fspath(self)).rglob(*args, **options)


def _restored(path: str, state: dict[str, Any]) -> NetworkPath:
    restored = NetworkPath(path)
    for name, value in state.items():
        setattr(restored, name, value)
    return restored


def is_url(word: str) -> bool:
    """Return whether a word is a URL, such as https://example.org/video.mp4."""
    return "://" in word


def url_of(path: Path) -> str | None:
    """Return the URL of a path; None for a local path."""
    return path.url if isinstance(path, NetworkPath) else None


def without_copy(path: Path) -> Path:
    """Return a path without its local copy; a path without a URL is returned unchanged."""
    url = url_of(path)
    return path if url is None else NetworkPath.of(url)


def is_remote(path: Path) -> bool:
    """Return whether a path is a URL without a local copy."""
    return isinstance(path, NetworkPath) and path.url is not None and not path.is_copy


def is_stored(path: Path) -> bool:
    """Return whether a path is a URL that must be copied to this computer to be read."""
    return is_remote(path) and not path.opens_others  # type: ignore[attr-defined]


def input_path(source: str | Path, *, allow_url: bool = False) -> Path:
    """Return the path of an input.

    Args:
        source: A file or a URL.
        allow_url: Whether FFmpeg may open the URL directly, and the files and URLs in a playlist.
    """
    word = str(source)
    if is_url(word):
        return NetworkPath.of(word, opens_others=allow_url and urlsplit(word).scheme in WEB)
    return NetworkPath.of(source, opens_others=True) if allow_url else Path(source)


def relative_path(path: Path, folder_of: Path) -> str:
    """Return the path of a file relative to another file; its URL if on another server."""
    url, other = url_of(path), url_of(folder_of)
    if url is None and other is None:
        return os.path.relpath(path, folder_of.parent)
    if url is None or other is None or urlsplit(url)[:2] != urlsplit(other)[:2]:
        return str(path.absolute()) if url is None else url
    return posixpath.relpath(url, posixpath.dirname(other))
