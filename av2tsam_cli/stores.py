"""Files in object stores and on web servers, by their URLs: find, download and upload them.

`fsspec` talks to the stores. Requests that fail because of the network are repeated, and what goes
wrong becomes one line that names the URL. An uploaded file appears complete or not at all. In a
folder, the record is uploaded last: without it, the folder is incomplete.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit
from uuid import uuid4

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.network import WEB, NetworkPath, is_url

T = TypeVar("T")

WAITS_S = (0.5, 2.0, 5.0)
"""Seconds before a request that failed because of the network is repeated."""
CONNECT_S, READ_S = 10, 60
"""Seconds to wait for a connection, and for the next bytes."""
POLL_S = 0.1
"""Seconds between two attempts to end all requests."""
PATIENCE_S = 2
"""Seconds to wait for requests that are cancelled."""
LARGEST_PUT = 64 << 20
"""Bytes of the largest file that is uploaded by one request, and of a part of a larger one."""
AT_ONCE = 8
"""Files of a folder that are uploaded at the same time."""
UNFINISHED_NAME = "av2tsam.incomplete"
"""The file that is in a folder while the others are uploaded."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers of a disk without space."""
NOT_FOUND = frozenset({404, 410})
DENIED = frozenset({401, 403})
NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
)
"""Errors of the libraries of stores without credentials."""
FINAL = frozenset({"NonHttpUrlRedirectClientError", "TooManyRedirects"})
"""Errors of aiohttp that a repeated request would meet again."""
BUSY = frozenset({408, 425, 429})
"""Statuses of HTTP that mean: later perhaps; as those from 500 on."""
PASSING = frozenset({errno.EIO, errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)})
"""Error numbers as which s3fs reports that a server failed."""
VERSIONS = ("ETag", "etag", "md5Hash", "content_settings", "blob_id", "Content-MD5")
"""What stores call the value that changes with the content of a file."""
TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime")
"""What they call the time of its last change, where they have no such value."""


@dataclass(frozen=True)
class _Service:
    """How files of a kind of URL are reached."""

    package: str
    """The package to install."""
    login: str
    """How to say who you are."""
    options: Mapping[str, Any]
    """Options of its file system in fsspec."""
    writable: bool = True
    """Whether outputs can be written."""


_S3 = _Service(
    "s3fs",
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket, "
    "FSSPEC_S3_ANON=true",
    {
        "max_concurrency": 1,  # else each holds a part in memory
        "config_kwargs": {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"total_max_attempts": 1},  # s3fs and `_repeat` do that
        },
    },
)
_GOOGLE = _Service(
    "gcsfs",
    "run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS",
    {},
)
_AZURE = _Service("adlfs", "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", {})
_WEB = _Service("aiohttp", "use a URL that needs no password", {}, writable=False)
_HUB = _Service("huggingface-hub", "run 'hf auth login', or set HF_TOKEN", {}, writable=False)
SERVICES: Mapping[str, _Service] = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "hf": _HUB,
    **dict.fromkeys(WEB, _WEB),
}
"""The schemes of URLs that are accepted. fsspec knows more, such as archives, other computers and
chains of several, which would open what a list of inputs must not open."""


@dataclass(frozen=True)
class StoredFile:
    """What a store says about a file."""

    size: int | None
    """Its bytes; None if that is unknown, as for what a web server makes on demand."""
    version: str
    """What changes with its content."""


def check_url(url: str, *, writing: bool = False) -> None:
    """Check that files of this kind of URL can be read, or written.

    Raises:
        UsageError: They cannot.
    """
    scheme = url.partition("://")[0]
    known = "s3://, gs://, hf://, az:// or https://"
    if scheme not in SERVICES or "::" in url.partition("/")[0]:
        raise UsageError(f"{url}: {scheme}:// is not supported; use {known}, or download it first")
    if scheme not in WEB and os.pardir in PurePath(url).parts:
        raise UsageError(f"{url}: has '..' in its path; write it without")
    if writing and not SERVICES[scheme].writable:
        other = "a folder, and then 'hf upload'" if scheme == "hf" else "a folder, or s3://"
        raise UsageError(f"{url}: {scheme}:// can only be read; use {other}")


def output_path(word: str | Path) -> Path:
    """Return the path of an output as the user gave it: a file, a folder or a URL.

    Raises:
        UsageError: Nothing can be written to such a URL.
    """
    if not is_url(str(word)):
        return Path(word)
    check_url(str(word), writing=True)
    return NetworkPath.of(word)


def list_files(url: str, *, recursive: bool, is_wanted: Callable[[str], bool]) -> list[str]:
    """Return the URLs of the files that a URL stands for: one, those in a folder or of a pattern.

    Hidden files are left out, as in local folders.

    Args:
        url: A file, a folder or a pattern such as `s3://bucket/**/*.mp4`.
        recursive: Whether the folders of a folder are searched.
        is_wanted: Tells by its name whether a file in a folder is wanted.

    Returns:
        The files in order; none if there is no such file or folder, or nothing wanted in it.

    Raises:
        Av2tsamError: The store cannot be reached, or refuses.
    """
    check_url(url)
    scheme, _, place = url.partition("://")
    if scheme in WEB:
        return [url]

    def search(files: Any, path: str) -> list[str]:
        root, pattern = path.rstrip("/"), _fixed_part(place)
        if pattern and not files.exists(path):
            found = files.glob(path, detail=True)
            root = files._strip_protocol(f"{scheme}://{pattern}").rstrip("/")
        elif not url.endswith("/") and files.isfile(path):
            return [url]
        else:
            found = files.find(root, maxdepth=None if recursive else 1, detail=True)
            found = {name: each for name, each in found.items() if is_wanted(name)}
        names = [name for name, each in found.items() if each["type"] == "file"]
        return [
            f"{scheme}://{name}"
            for name in sorted(names)
            if not re.search(r"(^|/)\.", name.removeprefix(root)) and not name.endswith("/")
        ]

    return _repeat(url, search)


def _fixed_part(pattern: str) -> str:
    """Return the folder of a pattern before its first wildcard; "" if it has none."""
    found = re.search("[*?[]", pattern)
    return pattern[: found.start()].rpartition("/")[0] if found else ""


def fixed_part(url: str) -> str:
    """Return the URL of the folder of a pattern before its first wildcard, or of a folder."""
    scheme, _, place = url.partition("://")
    return f"{scheme}://{_fixed_part(place) or place}" if scheme not in WEB else url


def look_up(url: str) -> StoredFile:
    """Return what the store says about a file.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, or refuses.
    """

    def ask(files: Any, path: str) -> StoredFile:
        known = files.info(path)
        if known["type"] != "file":
            raise FileNotFoundError(path)
        return _describe(url, known)

    return _repeat(url, ask)


def _describe(url: str, known: Mapping[str, Any]) -> StoredFile:
    size = known.get("size")
    version = next((str(known[key]) for key in VERSIONS if known.get(key)), None)
    if version is None:
        times = (str(known[key]) for key in TIMES if known.get(key))
        version = f"{url} {next(times, '')}"
    return StoredFile(size, f"{size} {version}")


def kind_of(url: str) -> Literal["file", "folder"] | None:
    """Return what there is under a URL; None if there is nothing.

    Raises:
        Av2tsamError: The store cannot be reached, or refuses.
    """

    def ask(files: Any, path: str) -> Literal["file", "folder"] | None:
        try:
            return "file" if files.info(path)["type"] == "file" else "folder"
        except FileNotFoundError:
            return None

    return _repeat(url, ask)


def list_folder(url: str) -> dict[str, int]:
    """Return the files below a folder, as their places in it with their sizes in bytes.

    Raises:
        Av2tsamError: The store cannot be reached, or refuses.
    """

    def search(files: Any, path: str) -> dict[str, int]:
        root = f"{path.rstrip('/')}/"
        found = files.find(root, detail=True).items()
        return {name.removeprefix(root): each["size"] for name, each in found if name != root}

    return _repeat(url, search)


def download(url: str, target: Path, *, size: int | None, go_on: Callable[[], bool]) -> None:
    """Copy a file to this computer.

    Args:
        url: The file.
        target: Where to write it. It is removed if the download fails.
        size: Its bytes, as `look_up` found them; None if unknown.
        go_on: Asked after each piece; if it returns False, the download is given up.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, refuses, or sent another number of bytes, or the
            disk is full.
    """
    from fsspec.callbacks import Callback

    class Watch(Callback):  # type: ignore[misc]  # fsspec has no types
        def relative_update(self, inc: int = 1) -> None:
            del inc
            if not go_on():
                raise _Stopped

    def copy(files: Any, path: str) -> None:
        files.get_file(path, os.fspath(target), callback=Watch())
        received = target.stat().st_size
        if size is not None and received != size:
            raise _Truncated(f"{received} of {size} bytes were received")

    try:
        _repeat(url, copy)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def open_stored(url: str) -> Iterator[IO[bytes]]:
    """Open a file of a store, of which only the parts that are read are downloaded.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, or refuses.
    """
    file: IO[bytes] = _repeat(url, lambda files, path: files.open(path, "rb"))
    with file:
        yield file


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of a small file, or of a part of a file.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, or refuses.
    """
    return _repeat(url, lambda files, path: bytes(files.cat_file(path, start=start, end=end)))


def check_writable(url: str) -> None:
    """Check that files can be uploaded to a folder, by one that is deleted at once.

    Raises:
        UsageError: There is no such bucket.
        Av2tsamError: The store cannot be reached, or refuses.
    """
    name = f".av2tsam-{uuid4().hex[:12]}.part"

    def write(files: Any, path: str) -> None:
        trial = f"{path.rstrip('/')}/{name}"
        files.pipe_file(trial, b"")
        files.rm_file(trial)

    _repeat(url, write, missing="no such bucket; create it, or check the URL")


def upload_file(source: Path, url: str) -> None:
    """Upload a file, which appears complete or not at all.

    Raises:
        Av2tsamError: The store cannot be reached, or refuses.
    """
    _repeat(url, lambda files, path: _put(files, source, path))


def _put(files: Any, source: Path, path: str) -> None:
    if source.stat().st_size <= LARGEST_PUT:
        files.put_file(os.fspath(source), path)
        return
    # In parts, one of which is in memory. Closing the file would complete what was written so far.
    target = files.open(path, "wb", block_size=LARGEST_PUT, autocommit=False)
    try:
        with source.open("rb") as file:
            while piece := file.read(1 << 20):
                target.write(piece)
        target.close()
        target.commit()
    except BaseException:
        target.discard()
        target.closed = True  # else it would be closed when it is forgotten
        raise


def upload_folder(folder: Path, url: str, *, last: str) -> None:
    """Replace a folder in a store, or create it; until it is complete, it has no record.

    Args:
        folder: The files.
        url: The folder in the store. What else is in it is deleted.
        last: Name of the record, which is deleted first and uploaded last.

    Raises:
        Av2tsamError: The store cannot be reached, or refuses.
    """
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    old = list_folder(url)
    marker = f"{url}/{UNFINISHED_NAME}"
    _repeat(marker, lambda files, path: files.pipe_file(path, b""))
    if last in old:
        _delete(f"{url}/{last}")
    _at_once(
        lambda name: upload_file(folder / name, f"{url}/{name}"),
        [name for name in names if name != last],
    )
    _at_once(lambda name: _delete(f"{url}/{name}"), old.keys() - {*names, last, UNFINISHED_NAME})
    if last in names:
        upload_file(folder / last, f"{url}/{last}")
    _delete(marker)


def _delete(url: str) -> None:
    _repeat(url, lambda files, path: files.rm_file(path))


def _at_once(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Do something for several files at the same time; after an error, for no further ones."""
    pool = ThreadPoolExecutor(AT_ONCE)
    running = [pool.submit(work, name) for name in names]
    try:
        for each in running:
            each.result()
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(each.done() for each in running):  # some may be about to repeat a request
            give_up()
            time.sleep(POLL_S)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def give_up() -> None:
    """Cancel requests that are still running, because what waited for them was interrupted."""
    used = sys.modules.get("fsspec.asyn")
    loop = None if used is None else used.loop[0]
    if loop is not None and loop.is_running():
        import asyncio  # takes 40 ms

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(PATIENCE_S)


async def _cancel_all() -> None:
    import asyncio

    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A download was given up."""


class _Truncated(Exception):  # noqa: N818
    """Not all of a file was received."""


def _repeat(
    url: str,
    work: Callable[[Any, str], T],
    *,
    missing: str = "no such file, or a folder without videos; check the URL",
) -> T:
    """Return what a function returns for the file system of a URL and the path in it.

    If the network or the server fails, it is called again.

    Args:
        url: The URL.
        work: The function.
        missing: What to say if there is nothing of that name.
    """
    check_url(url)
    waits_s: Sequence[float | None] = (*WAITS_S, None)
    for wait_s in waits_s:
        try:
            return work(*_open_store(url))
        except Exception as error:
            cause = _cause(error)
            if not _may_pass(cause) or wait_s is None:
                raise _explain(url, cause, missing) from error
            time.sleep(wait_s)
    raise AssertionError


def _open_store(url: str) -> tuple[Any, str]:
    """Return the file system for a URL, and the path of the file in it."""
    import fsspec

    scheme = urlsplit(url).scheme
    service = SERVICES[scheme]
    options = {"use_listings_cache": False, **service.options}
    if scheme in WEB:
        import aiohttp

        url = quote(url, safe="%/:?#[]@!$&'()*+,;=~")
        # The whole download has no limit of time, as that depends on its size.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        options |= {"encoded": True, "client_kwargs": {"timeout": limit, "trust_env": True}}
    files = fsspec.filesystem(scheme, **options)
    return files, files._strip_protocol(url)


def _cause(error: Exception) -> Exception:
    """Return what caused an error: fsspec reports every failure of HTTP as a missing file."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        module = type(error.__cause__).__module__
        if module.startswith(("aiohttp", "asyncio")) or isinstance(error.__cause__, OSError):
            return error.__cause__
    return error


def _status(error: Exception) -> int | None:
    """Return the status of HTTP that an error is about; None if it is about none."""
    response = getattr(error, "response", None)
    for found in (getattr(error, "status", None), getattr(response, "status_code", None)):
        if isinstance(found, int):
            return found
    return None


def _is_denied(error: Exception) -> bool:
    denied = isinstance(error, PermissionError) or _status(error) in DENIED
    return denied or type(error).__name__ in NO_CREDENTIALS or "credentials" in str(error)


def _may_pass(error: Exception) -> bool:
    """Return whether the same request can succeed later."""
    if isinstance(error, Av2tsamError | ImportError | _Stopped | FileNotFoundError | ValueError):
        return False
    if _is_denied(error) or type(error).__name__ in FINAL:
        return False
    status = _status(error)
    if status is not None:
        return status >= 500 or status in BUSY
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        is_network = type(error).__module__ != "builtins"  # such as aiohttp's
        return is_network or error.errno in PASSING
    return True


def _explain(url: str, error: Exception, missing: str) -> Exception:
    """Return the error to raise: one line that names the URL and says what to do."""
    service = SERVICES[urlsplit(url).scheme]
    reason = " ".join(str(error).split()) or type(error).__name__
    explained: Exception = Av2tsamError(f"{url}: refused by the server ({reason}); check the URL")
    if isinstance(error, Av2tsamError | _Stopped):
        explained = error
    elif isinstance(error, ImportError):
        explained = UsageError(
            f"{url}: needs {service.package}; install it with: pip install {service.package}"
        )
    elif isinstance(error, FileNotFoundError) or _status(error) in NOT_FOUND:
        explained = UsageError(f"{url}: {missing}")
    elif _is_denied(error):
        explained = Av2tsamError(f"{url}: access denied ({reason}); {service.login}")
    elif isinstance(error, OSError) and error.errno in FULL:
        explained = OSError(error.errno, error.strerror)
    elif _may_pass(error):
        explained = Av2tsamError(
            f"{url}: the connection failed ({reason}); check the network and run again"
        )
    return explained
