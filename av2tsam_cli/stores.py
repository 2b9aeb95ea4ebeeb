"""Find, download and upload files in object stores and on web servers.

`fsspec` accesses the stores. Requests that fail because of the network are repeated, and errors are
reported in one line that names the URL. An uploaded file appears complete or not at all. In a
folder, the record is uploaded last: without it, the folder is incomplete.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import textwrap
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
"""Seconds between two attempts to cancel all requests."""
PATIENCE_S = 2
"""Seconds to wait until cancelled requests have ended."""
LARGEST_PUT = 64 << 20
"""Largest file uploaded by one request, and size of the parts of larger files, in bytes."""
AT_ONCE = 8
"""Number of files of a folder to upload at the same time."""
UNFINISHED_NAME = "av2tsam.incomplete"
"""Name of the file that marks a folder whose upload is not complete."""
LONGEST_REASON = 240
"""Most characters of an error message of a package."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Error numbers for a full disk."""
NOT_FOUND = frozenset({404, 410})
DENIED = frozenset({401, 403})
NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}
)
"""Errors of the storage libraries if there are no credentials."""
FINAL = frozenset({"NonHttpUrlRedirectClientError", "TooManyRedirects"})
"""Errors of aiohttp that would occur again if the request was repeated."""
BUSY = frozenset({408, 425, 429})
"""HTTP status codes, besides 500 and above, after which a later request may succeed."""
PASSING = frozenset({errno.EIO, errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO)})
"""Error numbers that s3fs uses for server errors."""
VERSIONS = ("ETag", "etag", "md5Hash", "content_settings", "blob_id", "Content-MD5")
"""Names that stores use for the value that changes with the content of a file."""
TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime")
"""Names that stores use for the modification time, if they have no such value."""


@dataclass(frozen=True)
class _Service:
    """How to access one kind of URL."""

    package: str
    """The package to install."""
    login: str
    """How to log in."""
    options: Mapping[str, Any]
    """Options of the file system in fsspec."""
    writable: bool = True
    """Whether outputs can be written."""
    authority: str = "SSL_CERT_FILE"
    """Environment variable for a file with certificates of other authorities."""
    repeats: int = len(WAITS_S)
    """Number of repetitions after a network error; fewer if the package itself repeats requests."""


_S3 = _Service(
    "s3fs",
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket, "
    "FSSPEC_S3_ANON=true",
    {
        "max_concurrency": 1,  # each request holds a part in memory
        "config_kwargs": {
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"total_max_attempts": 1},  # s3fs and `_repeat` do that
        },
    },
    authority="AWS_CA_BUNDLE",
)
_GOOGLE = _Service(
    "gcsfs",
    "run 'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS",
    {},
    repeats=1,  # gcsfs does not begin a broken upload again
)
_AZURE = _Service(
    "adlfs",
    "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or "
    "AZURE_STORAGE_CONNECTION_STRING",
    {},
    repeats=0,
)
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
"""The supported schemes of URLs. fsspec has more, such as archives, remote computers and chained
file systems, but a list of inputs must not be able to open those."""


@dataclass(frozen=True)
class StoredFile:
    """The properties of a file in a store."""

    size: int | None
    """Size in bytes; None if unknown, as for content that a web server generates on demand."""
    version: str
    """A value that changes with the content."""


def check_url(url: str, *, writing: bool = False) -> None:
    """Check that this kind of URL can be read, or written.

    Raises:
        UsageError: It cannot.
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
    """Return the path of an output, given as a file, a folder or a URL.

    Raises:
        UsageError: This kind of URL cannot be written.
    """
    if not is_url(str(word)):
        return Path(word)
    check_url(str(word), writing=True)
    return NetworkPath.of(word)


def list_files(url: str, *, recursive: bool, is_wanted: Callable[[str], bool]) -> list[str]:
    """Return the URLs of the files at a URL: one file, or those in a folder or matching a pattern.

    Hidden files are left out, as in local folders.

    Args:
        url: A file, a folder or a pattern such as `s3://bucket/**/*.mp4`.
        recursive: Whether to search subfolders.
        is_wanted: Returns whether to include a file in a folder, given its name.

    Returns:
        The files in order; none if there is no such file or folder, or no wanted file in it.

    Raises:
        Av2tsamError: The store cannot be reached, or denies access.
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
    """Return the properties of a file.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, or denies access.
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
    """Return whether a URL is a file or a folder; None if it does not exist.

    Raises:
        Av2tsamError: The store cannot be reached, or denies access.
    """

    def ask(files: Any, path: str) -> Literal["file", "folder"] | None:
        try:
            return "file" if files.info(path)["type"] == "file" else "folder"
        except FileNotFoundError:
            return None

    return _repeat(url, ask)


def list_folder(url: str) -> dict[str, int]:
    """Return the sizes in bytes of all files in a folder, by their paths in it.

    Raises:
        Av2tsamError: The store cannot be reached, or denies access.
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
        size: Its size in bytes, from `look_up`; None if unknown.
        go_on: Called after each piece; if it returns False, the download is cancelled.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, denies access, or sent more or fewer bytes, or
            the disk is full.
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
    """Open a file in a store; only the parts that are read are downloaded.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, or denies access.
    """
    file: IO[bytes] = _repeat(url, lambda files, path: files.open(path, "rb"))
    with file:
        yield file


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the content of a small file, or a range of bytes of a file.

    Raises:
        UsageError: There is no such file.
        Av2tsamError: The store cannot be reached, or denies access.
    """
    return _repeat(url, lambda files, path: bytes(files.cat_file(path, start=start, end=end)))


def check_writable(url: str) -> None:
    """Check that files can be uploaded to a folder, by uploading an empty file and deleting it.

    Raises:
        UsageError: There is no such bucket.
        Av2tsamError: The store cannot be reached, or denies access.
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
        Av2tsamError: The store cannot be reached, or denies access.
    """
    _repeat(url, lambda files, path: _put(files, source, path))


def _put(files: Any, source: Path, path: str) -> None:
    if source.stat().st_size <= LARGEST_PUT:
        files.put_file(os.fspath(source), path)
        return
    # In parts, so that only one is in memory. Closing the file would complete a partial upload.
    target = files.open(path, "wb", block_size=LARGEST_PUT, autocommit=False)
    try:
        with source.open("rb") as file:
            while piece := file.read(1 << 20):
                target.write(piece)
        target.close()
        target.commit()
    except BaseException:
        target.discard()
        target.closed = True  # or the garbage collector would close it
        raise


def upload_folder(folder: Path, url: str, *, last: str) -> None:
    """Create or replace a folder in a store; it has no record until it is complete.

    Args:
        folder: The local folder.
        url: The folder in the store. Other files in it are deleted.
        last: Name of the record, which is deleted first and uploaded last.

    Raises:
        Av2tsamError: The store cannot be reached, or denies access.
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
    """Process several files at the same time; stop after the first error."""
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
    """Cancel requests that are still running after an interruption."""
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
    """A download was cancelled."""


class _Truncated(Exception):  # noqa: N818
    """Only a part of a file was received."""


def _repeat(
    url: str,
    work: Callable[[Any, str], T],
    *,
    missing: str = "no such file, or a folder without videos; check the URL, or set `recursive`",
) -> T:
    """Call a function with the file system of a URL and the path in it, and return its result.

    If the network or the server fails, call it again.

    Args:
        url: The URL.
        work: The function.
        missing: The error message if the file does not exist.
    """
    check_url(url)
    repeats = SERVICES[urlsplit(url).scheme].repeats
    waits_s: Sequence[float | None] = (*WAITS_S[:repeats], None)
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
        # No time limit for the whole download, which depends on the size of the file.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        options |= {"encoded": True, "client_kwargs": {"timeout": limit, "trust_env": True}}
    files = fsspec.filesystem(scheme, **options)
    return files, files._strip_protocol(url)


def _cause(error: Exception) -> Exception:
    """Return the cause of an error, because fsspec reports every HTTP error as a missing file."""
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        module = type(error.__cause__).__module__
        if module.startswith(("aiohttp", "asyncio")) or isinstance(error.__cause__, OSError):
            return error.__cause__
    return error


def _status(error: Exception) -> int | None:
    """Return the HTTP status code of an error; None if it has none."""
    response = getattr(error, "response", None)
    for found in (getattr(error, "status", None), getattr(response, "status_code", None)):
        if isinstance(found, int):
            return found
    return None


def _is_denied(error: Exception) -> bool:
    denied = isinstance(error, PermissionError) or _status(error) in DENIED
    return denied or type(error).__name__ in NO_CREDENTIALS or "credentials" in str(error)


def _is_untrusted(error: Exception) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _may_pass(error: Exception) -> bool:
    """Return whether the same request may succeed later."""
    if isinstance(error, Av2tsamError | ImportError | _Stopped | FileNotFoundError | ValueError):
        return False
    if _is_denied(error) or _is_untrusted(error) or type(error).__name__ in FINAL:
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
    line = (str(error).strip() or type(error).__name__).splitlines()[0]  # Azure's XML follows
    reason = textwrap.shorten(line, LONGEST_REASON, placeholder=" ...")
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
    elif _is_untrusted(error):
        explained = Av2tsamError(
            f"{url}: the certificate of the server is not trusted ({reason}); set "
            f"{service.authority} to a file with the certificate of its authority"
        )
    elif type(error).__name__ in FINAL:
        explained = Av2tsamError(
            f"{url}: the server redirects in a circle, or to no web page; check the URL"
        )
    elif isinstance(error, OSError) and error.errno in FULL:
        explained = OSError(error.errno, error.strerror)
    elif _may_pass(error):
        explained = Av2tsamError(
            f"{url}: the connection failed ({reason}); check the network and run again"
        )
    return explained
