"""Inputs that may be on the network, or name files that are; all others are opened alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


# `Path` itself can only be subclassed from Python 3.12 on.
class NetworkPath(type(Path())):  # type: ignore[misc]
    """A URL, or the path of a file that may name other files and URLs, such as a playlist.

    The name of a URL is the last part of its path, without its query.
    """

    url: str | None = None
    """The URL; None for a file."""

    @classmethod
    def of(cls, word: str | Path) -> NetworkPath:
        """Return a URL or a path as the user gave it."""
        if not is_url(str(word)):
            return cls(word)
        path = cls(unquote(urlsplit(str(word)).path).rstrip("/") or "video")
        path.url = str(word)
        return path

    def __str__(self) -> str:
        return self.url or str(super().__str__())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NetworkPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        """Return how to copy it; that of `Path` would lose the URL."""
        return NetworkPath.of, (str(self),)


def is_url(word: str) -> bool:
    """Return whether a word is a URL, such as https://example.org/video.mp4."""
    return "://" in word


def is_remote(path: Path) -> bool:
    """Return whether a path is a URL."""
    return isinstance(path, NetworkPath) and path.url is not None


def input_path(source: str | Path, *, allow_url: bool) -> Path:
    """Return the path of an input, or its URL if URLs are allowed."""
    return NetworkPath.of(source) if allow_url else Path(source)
