"""Find the inputs of a command in files, folders, patterns and lists, and name their outputs."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path, PurePath
from string import Formatter
from typing import Annotated
from urllib.parse import urlsplit

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.files import output_name
from av2tsam_cli.job import STDIN, Input
from av2tsam_cli.network import WEB, input_path, is_remote, is_url, url_of
from av2tsam_cli.options import Option, Panel, either
from av2tsam_cli.stores import check_url, fixed_part, list_files

VIDEOS = re.compile(
    r"\.(3g2|3gp|asf|avi|dv|f4v|flv|m2ts|m4v|mkv|mov|mp4|mpe?g|mts|mxf|ogv|ts|vob|webm|wmv)",
    re.IGNORECASE,
)
"""Suffixes by which videos in folders are recognised."""
SOUNDS = re.compile(r"\.(aac|ac3|aiff?|flac|m4a|mp3|og[ag]|opus|wav|wma)", re.IGNORECASE)
"""Suffixes by which audio files in folders are recognised."""
TEMPLATE_FIELDS = ("stem", "name", "folder", "parent", "number")
"""The fields of a name template, which are written in braces."""
WIDTH = re.compile(r"0?\d{1,2}")
"""The width of a number in a name template; 05 pads it with zeros."""
SUFFIX = re.compile(r"\.\w+$")
"""The suffix at the end of a name template, which chooses the container of a video."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Start of text files that some programs on Windows write."""


@dataclass(frozen=True)
class InputOptions:
    """How inputs are found."""

    recursive: Annotated[bool, Option("also search subfolders", panel=Panel.INPUTS, short="-r")] = (
        False
    )
    """Whether the files in subfolders are inputs too."""
    files_from: Annotated[
        Path | None,
        Option(
            "read inputs from a file, one per line; - for stdin",
            panel=Panel.INPUTS,
            metavar="FILE",
        ),
    ] = None
    """A file with the names of inputs, or `-` for stdin; None for no file."""
    null: Annotated[
        bool,
        Option("names in --files-from end with NUL", panel=Panel.INPUTS, short="-0"),
    ] = False
    """Whether the names in `files_from` end with NUL instead of a line break."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: An option has no effect.
        """
        if self.null and self.files_from is None:
            raise UsageError("`null` has no effect without `files_from`; drop it")


@dataclass(frozen=True)
class _Search:
    """How folders and patterns are searched."""

    kinds: Sequence[re.Pattern[str]]
    """Patterns for the suffixes of files to find in folders."""
    recursive: bool
    """Whether subfolders are searched."""
    out: str | None
    """Real path or URL of a folder whose contents are skipped; None for no folder."""
    allow_url: bool
    """Whether FFmpeg opens web URLs directly."""

    def expand(self, word: str) -> Iterator[Input]:
        """Yield the files for a path, a folder, a pattern or a URL."""
        if is_url(word):
            yield from self._stored(word)
            return
        if not has_magic(word) or os.path.lexists(word):
            yield from self.files(word, Path())
            return
        root = _fixed_part(word)
        matches = sorted(glob(word, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
        files = [Path(match) for match in matches if os.path.isfile(match)]  # noqa: PTH113 - fast
        if self.out is not None and self.out != os.path.realpath(root):
            files = [path for path in files if not self._skips(os.path.realpath(path))]
        for path in files:
            yield Input(path, path.parent.relative_to(root) / output_name(path))
        if not files:
            yield Input(Path(word), Path())

    def files(self, word: str, folder: Path) -> Iterator[Input]:
        """Yield a file, or the files in a folder.

        Args:
            word: A file, a folder or the URL of a file.
            folder: Subfolder of the output folder for its outputs.
        """
        search, files = self, list[Input]()
        path = self._path(word)
        if not is_remote(path) and path.is_dir():
            real = os.path.realpath(path)
            if real != self.out and self._skips(real):  # such as "takes" if `out` is "."
                search = replace(self, out=None)
            files = list(search._in_folder(path, real, folder))
        yield from files or [Input(path, folder / output_name(path))]

    def _path(self, word: str) -> Path:
        """Return the path of a file or a URL.

        Raises:
            UsageError: URLs of this kind cannot be opened.
        """
        if is_url(word):
            check_url(word)
        return input_path(word, allow_url=self.allow_url)

    def _stored(self, url: str) -> Iterator[Input]:
        """Yield the files for the URL of a file, a folder or a pattern."""
        path = self._path(url)
        if not needs_listing(url):
            yield Input(path, Path(output_name(path)))
            return
        try:
            urls = list_files(url, recursive=self.recursive, is_wanted=self._is_video)
        except Av2tsamError as error:  # the other inputs are processed
            yield Input(path, Path(), error=error)
            return
        root = f"{fixed_part(url).rstrip('/')}/"
        out = None if self.out is None else f"{self.out.rstrip('/')}/"
        for each in urls:
            if out is None or not each.startswith(out) or root.startswith(out):
                # Keys can have empty parts: "clips//a" must not become "/a".
                relative = each.removeprefix(root).lstrip("/") if each.startswith(root) else ""
                found = self._path(each)
                yield Input(found, Path(relative).parent / output_name(found))
        if not urls:
            yield Input(path, Path())

    def _is_video(self, name: str) -> bool:
        return self._is_wanted(PurePath(name).suffix)

    def _in_folder(self, path: Path, real: str, folder: Path) -> Iterator[Input]:
        """Yield the files in a folder, and folders that cannot be read, which fail later."""
        if self._skips(real):
            return
        try:
            with os.scandir(path) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError:
            yield Input(path, folder)
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            each = path / entry.name
            if entry.is_dir(follow_symlinks=False):
                if self.recursive:
                    real_path = os.path.join(real, entry.name)  # noqa: PTH118 - fast
                    yield from self._in_folder(each, real_path, folder / entry.name)
            elif self._is_wanted(each.suffix) and entry.is_file():
                yield Input(each, folder / output_name(each))

    def _is_wanted(self, suffix: str) -> bool:
        return any(kind.fullmatch(suffix) for kind in self.kinds)

    def _skips(self, real: str) -> bool:
        return self.out is not None and f"{real}{os.sep}".startswith(f"{self.out}{os.sep}")


def needs_listing(word: str) -> bool:
    """Return whether a URL may stand for several files, so that the store must list them."""
    if not is_url(word) or urlsplit(word).scheme in WEB:
        return False
    suffix = PurePath(word).suffix
    return has_magic(word) or not (VIDEOS.fullmatch(suffix) or SOUNDS.fullmatch(suffix))


def find_inputs(
    words: Sequence[str],
    options: InputOptions,
    *,
    kinds: Sequence[re.Pattern[str]] = (VIDEOS,),
    out: Path | None = None,
    allow_url: bool = False,
) -> tuple[Input, ...]:
    """Return the files for paths, folders, glob patterns and URLs, without duplicates.

    Missing paths, patterns without matches, and folders that have no videos or cannot be listed are
    returned as they are, so that `check_input` can report them.

    Args:
        words: Paths, patterns and URLs.
        options: How inputs are found.
        kinds: Patterns for the suffixes of files to find in folders.
        out: The output folder. Files in it are not found by folders and patterns, so that results
            do not become inputs, unless the folder that is searched is itself in `out`.
        allow_url: Whether FFmpeg opens web URLs directly.

    Raises:
        UsageError: There are no words, a URL cannot be opened, or the list of files cannot be read.
    """
    if not words and options.files_from is None:
        raise UsageError("missing INPUT...; name files or folders, or set `files_from`")
    real_out = None if out is None else url_of(out) or os.path.realpath(out)
    search = _Search(kinds, options.recursive, real_out, allow_url)
    found: dict[str, Input] = {}
    folders: dict[Path, str] = {}
    for each in _expand_all(search, words, options):
        key = _real_path(each.path, folders)
        known = found.setdefault(key, each)
        if known is not each and known.path.is_symlink() and not each.path.is_symlink():
            found[key] = each
    if not allow_url:
        return tuple(found.values())
    return tuple(
        replace(each, path=input_path(each.path, allow_url=True)) for each in found.values()
    )


def _real_path(path: Path, folders: dict[Path, str]) -> str:
    """Return the real path of a file, or a URL; `folders` caches the real paths of folders."""
    if is_remote(path):
        return str(path)
    if path.name in {"", os.pardir} or path.is_symlink():
        return os.path.realpath(path)  # resolve() fails on link loops
    if path.parent not in folders:
        folders[path.parent] = os.path.realpath(path.parent)
    return os.path.join(folders[path.parent], path.name)  # noqa: PTH118


def _expand_all(search: _Search, words: Sequence[str], options: InputOptions) -> Iterator[Input]:
    """Yield the files for the words of the command line, then the files in a list."""
    for word in words:
        yield from search.expand(word)
    if options.files_from is not None:
        for word in _read_list(options.files_from, b"\0" if options.null else b"\n"):
            yield from search.files(word, _listed_folder(word))


def _read_list(path: Path, end: bytes) -> list[str]:
    """Return the names in a list of files.

    Raises:
        UsageError: The list cannot be read, or is empty.
    """
    try:
        content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if end == b"\n" and b"\0" in content:
        raise UsageError(f"{path}: contains NUL characters; set `null` if they end the names")
    lines = content.removeprefix(BYTE_ORDER_MARK).split(end)
    if end == b"\n":
        lines = [line.removesuffix(b"\r") for line in lines]
    names = [os.fsdecode(line) for line in lines if line]
    if not names:
        raise UsageError(f"{path}: lists no files; write one per line")
    return names


def _listed_folder(word: str) -> Path:
    """Return the output subfolder of a listed file: its folder, if in the working directory."""
    if is_url(word):
        return Path()
    relative = os.path.relpath(word)
    return Path() if relative.startswith(os.pardir) else Path(relative).parent


def _fixed_part(pattern: str) -> str:
    """Return the folder of a pattern before its first wildcard; "" for the working directory."""
    parts = Path(pattern).parts
    first = next(k for k, part in enumerate(parts) if has_magic(part))
    return str(Path(*parts[:first])) if first else ""


def name_outputs(inputs: Sequence[Input], template: str, out: Path) -> tuple[Input, ...]:
    """Name the outputs of inputs by a template.

    Args:
        inputs: The inputs.
        template: A path such as `{folder}/{stem}_matte.webm`, see `TEMPLATE_FIELDS`.
        out: The output folder.

    Raises:
        UsageError: `out` is a video file, a field is unknown, or a name is empty, absolute or
            outside the folder.
    """
    if VIDEOS.fullmatch(out.suffix) and not out.is_dir():
        raise UsageError(f"{out}: `name_template` names outputs in a folder; set `out` to one")
    _check_template(template)
    found = SUFFIX.search(template)
    suffix = found[0] if found else ""
    template = template.removesuffix(suffix)
    return tuple(
        replace(each, name=_named(each, number, template), suffix=suffix)
        for number, each in enumerate(inputs, start=1)
    )


def _check_template(template: str) -> None:
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"`name_template` {template!r}: {error}; write {{{{ for a brace") from None
    for _, name, width, conversion in pieces:
        if name is not None and (name not in TEMPLATE_FIELDS or conversion):
            known = either([f"{{{each}}}" for each in TEMPLATE_FIELDS])
            raise UsageError(f"`name_template` has the unknown field {{{name}}}; use {known}")
        if width and not (name == "number" and WIDTH.fullmatch(width)):
            raise UsageError(
                f"`name_template` cannot format {{{name}:{width}}}; only {{number:05}} has a width"
            )


def _named(source: Input, number: int, template: str) -> Path:
    values: dict[str, object] = {
        "stem": output_name(source.path),
        "name": source.path.name,
        "folder": source.name.parent,
        "parent": source.path.absolute().parent.name if "{parent" in template else "",
        "number": number,
    }
    name = template.format(**values)
    path = Path(name)
    if not path.name or name.endswith("/"):
        raise UsageError(f"`name_template` gives {source.path} an empty name; add {{stem}}")
    if path.is_absolute() or os.pardir in path.parts:
        raise UsageError(
            f"`name_template` puts {source.path} at {name!r}, outside `out`; use a name in it"
        )
    return path
