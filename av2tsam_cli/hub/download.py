"""Install models from the Hugging Face hub: look up, download, verify, convert.

Since version 2 `hf_hub_download` discards a partial file when it is interrupted. This module
therefore uses one layer below: the hub's client lists the files, and `http_get`, which can continue
after a number of bytes, downloads them. Partial files are kept, named by the file's checksum.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from av2tsam_cli.errors import Interrupted, WeightsError
from av2tsam_cli.files import write_errors
from av2tsam_cli.hub.installed import HOME_HINT, InstalledModel, Origin, install, sha256
from av2tsam_cli.hub.locate import home, installed_path
from av2tsam_cli.hub.registry import MODELS, NamedModel, format_bytes, with_needs

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

    from av2tsam_cli.model.config import ProjectorKind

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
"""Suffixes of published checkpoints."""

TIMEOUT_S = 20.0
"""Seconds without an answer after which the hub counts as unreachable."""

FILES_SHOWN = 12
"""Most files of a repository that an error message lists."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Error numbers of the disk; any other operating system error is the network's."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub, as the repository's listing describes it."""

    model: NamedModel
    """The model that will be made from it."""
    file: str
    """Path in the repository."""
    commit: str
    """Commit of the repository."""
    bytes: int
    """Size."""
    sha256: str | None
    """Checksum; the hub lists one for every large file."""
    url: str = field(repr=False)
    """Address of the content."""

    @property
    def path(self) -> Path:
        """Path of the download, which depends on the content."""
        folder = (self.sha256 or self.commit)[:16]
        return home() / "downloads" / folder / PurePosixPath(self.file).name

    @property
    def partial_path(self) -> Path:
        """Path of the download while it is incomplete."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def missing_bytes(self) -> int:
        """Number of bytes that are still to be downloaded."""
        paths = (self.path, self.partial_path)
        present = next((path.stat().st_size for path in paths if path.is_file()), 0)
        return max(self.bytes - present, 0)


ReportBytes = Callable[[int], None]
"""Called with the number of bytes downloaded so far."""

ShowDownload = Callable[[RemoteFile], AbstractContextManager[ReportBytes | None]]
"""Shows the progress of one download for the duration of the context."""


def missing_models(
    name: str, *, force: bool = False, models: Mapping[str, NamedModel] = MODELS
) -> list[NamedModel]:
    """Return which of a model and those that it needs are not installed.

    Args:
        name: Name of the model.
        force: Whether to include the model itself, or all of a set, although it is installed.
        models: The registry.
    """
    again = force and models[name].is_set
    return [
        model
        for model in with_needs(name, models)
        if again or (force and model.name == name) or not installed_path(model.name).is_file()
    ]


def pull(
    name: str,
    *,
    file: str | None = None,
    projector: ProjectorKind = "mul",
    force: bool = False,
    models: Mapping[str, NamedModel] = MODELS,
    endpoint: str | None = None,
    announce: Callable[[Sequence[RemoteFile]], None] | None = None,
    progress: ShowDownload | None = None,
) -> Iterator[InstalledModel]:
    """Download, verify, convert and install a model and the models that it needs.

    Args:
        name: Name of the model.
        file: Path in its repository, if the registry has none or to use another file.
        projector: See `convert.convert`.
        force: Whether to download the model again although it is installed.
        models: The registry.
        endpoint: Address of the hub; None for huggingface_hub's default, `HF_ENDPOINT`.
        announce: Called with all files before the first one is downloaded.
        progress: Shows the progress of each download.

    Yields:
        Each model as soon as it is installed.

    Raises:
        WeightsError: The hub cannot be reached or has no such file, the disk is full, or a file is
            corrupted or not the expected model. Installed models are left as they were.
        Interrupted: The user interrupted it. The partial download is kept; the next call resumes.
    """
    missing = missing_models(name, force=force, models=models)
    if not missing:
        return
    downloads = home() / "downloads"
    try:
        with _disk_errors(downloads):
            downloads.mkdir(parents=True, exist_ok=True)
        with _download_lock(downloads):
            client = _HubClient(endpoint)
            remotes = [
                client.look_up(m, file if m.name == name else None, missing) for m in missing
            ]
            check_space(remotes)
            if announce is not None:
                announce(remotes)
            for remote in remotes:
                yield _download_and_install(client, remote, projector, progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the partial download is kept, 'av2tsam models pull {name}' resumes it"
        ) from None


def _download_and_install(
    client: _HubClient,
    remote: RemoteFile,
    projector: ProjectorKind,
    progress: ShowDownload | None,
) -> InstalledModel:
    if not remote.path.is_file():
        client.download(remote, progress)
    origin = Origin(remote.file, verify_download(remote), remote.model.repository, remote.commit)
    model = install(remote.path, origin, expected=remote.model, overwrite=True, projector=projector)
    shutil.rmtree(remote.path.parent)
    return model


def verify_download(remote: RemoteFile) -> str:
    """Return the checksum of a complete download after comparing it with the known ones.

    Raises:
        WeightsError: It differs; the download is deleted.
    """
    digest = sha256(remote.path)
    for expected, origin in ((remote.sha256, "the hub"), (remote.model.sha256, "this tool")):
        if expected is not None and digest != expected:
            remote.path.unlink()
            raise WeightsError(
                f"{remote.file} from {remote.model.repository}: its sha256 is {digest}, but "
                f"{origin} lists {expected}; the download was deleted, run again to repeat it"
            )
    return digest


def check_space(remotes: Sequence[RemoteFile]) -> None:
    """Check that all converted files and the largest download fit on the disk together.

    Raises:
        WeightsError: They do not fit.
    """
    needed = sum(remote.bytes for remote in remotes) + max(r.missing_bytes for r in remotes)
    free = shutil.disk_usage(home()).free
    if needed > free:
        raise WeightsError(
            f"{home()}: not enough space, {format_bytes(needed)} are needed to download and "
            f"convert and {format_bytes(free)} are free; free some space or set AV2TSAM_HOME to "
            "another disk"
        )


def choose_file(
    model: NamedModel, file: str | None, info: ModelInfo, models: Mapping[str, NamedModel] = MODELS
) -> RepoSibling:
    """Return the repository's file to download: the given one, else the only one that can be it.

    Raises:
        WeightsError: There is none, or more than one.
    """
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    is_certain = file is not None or (model.file is not None and "file" not in model.unverified)
    file = file or model.file
    if file is not None and file in siblings:
        return siblings[file]
    candidates = [path for path in siblings if _may_be(path, model, models)]
    if not is_certain and len(candidates) == 1:
        return siblings[candidates[0]]
    if file is not None:
        problem = f"has no file {file}; it contains {_listed(siblings)}"
    elif candidates:
        problem = f"contains several weights files: {_listed(candidates)}"
    else:
        problem = f"contains no weights for this model; it contains {_listed(siblings)}"
    raise WeightsError(
        f"{model.name}: {model.repository} {problem}; pick one with "
        f"'av2tsam models pull {model.name} --file NAME'"
    )


def _may_be(path: str, model: NamedModel, models: Mapping[str, NamedModel]) -> bool:
    """Return whether a file may contain a model, judging by the file's name."""
    name = PurePosixPath(path).name
    encoders = {
        entry.file for entry in models.values() if entry.parts[:1] in {("clip",), ("clap",)}
    }
    return name.endswith(WEIGHT_SUFFIXES) and (name not in encoders or name == model.file)


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    """Return the first names in alphabetical order, for an error message."""
    ordered = sorted(names)
    return (
        ", ".join(ordered[:FILES_SHOWN]) + (", ..." if len(ordered) > FILES_SHOWN else "")
        or "nothing"
    )


def _disk_errors(path: Path) -> AbstractContextManager[None]:
    """Turn errors of writing below the folder of installed models into one line."""
    return write_errors(path, raises=WeightsError, hint=HOME_HINT)


@contextmanager
def _download_lock(folder: Path) -> Iterator[None]:
    """Let only one process at a time download into the folder."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported lazily

    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(folder / ".lock", timeout=1.0))
        except TimeoutError as error:
            raise WeightsError(
                f"{folder.parent}: another av2tsam is downloading models; run again when it is done"
            ) from error
        yield


class _HubClient:
    """The client of huggingface_hub, with its errors turned into clear lines."""

    def __init__(self, endpoint: str | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported lazily

        # False: never send a token that another tool has stored.
        token = os.environ.get("HF_TOKEN") or False
        tool = version("av2tsam")
        self.api = HfApi(endpoint, token, library_name="av2tsam", library_version=tool)
        self.headers = build_hf_headers(token=token, library_name="av2tsam", library_version=tool)
        # Downloads resume after a number of bytes, so these must be the file's own bytes.
        self.headers["Accept-Encoding"] = "identity"

    def look_up(
        self, model: NamedModel, file: str | None, missing: Sequence[NamedModel]
    ) -> RemoteFile:
        """Find a model's file, its size and its checksum.

        Raises:
            WeightsError: The hub cannot be reached, or has no such repository or file.
        """
        from huggingface_hub import hf_hub_url

        repository = model.repository
        if repository is None:
            raise WeightsError(f"{model.name}: comes with the package; install the package again")
        try:
            with self._clear_errors(repository):
                info = self.api.model_info(repository, files_metadata=True, timeout=TIMEOUT_S)
        except _ConnectionFailed as error:
            origins = "; ".join(entry.origin for entry in missing)
            raise WeightsError(
                f"{missing[0].name}: {self.api.endpoint} cannot be reached ({error}); check the "
                f"connection, or download by hand and run 'av2tsam models convert FILE': {origins}"
            ) from error
        sibling = choose_file(model, file, info)
        if info.sha is None or sibling.size is None:
            raise WeightsError(
                f"{repository}: {self.api.endpoint} does not list the sizes of its files; try later"
            )
        return RemoteFile(
            model=model,
            file=sibling.rfilename,
            commit=info.sha,
            bytes=sibling.size,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            url=hf_hub_url(
                repository, sibling.rfilename, revision=info.sha, endpoint=self.api.endpoint
            ),
        )

    def download(self, remote: RemoteFile, progress: ShowDownload | None) -> None:
        """Download a file, or the rest of it.

        Raises:
            WeightsError: The connection was lost and retrying does not help, or the disk is full.
        """
        what = f"{remote.file} from {remote.model.repository}"
        partial = remote.partial_path
        with _disk_errors(partial):
            partial.parent.mkdir(parents=True, exist_ok=True)
        if partial.is_file() and partial.stat().st_size > remote.bytes:
            partial.unlink()
        missing = remote.bytes + 1
        while remote.missing_bytes < missing:  # retry as long as each attempt adds something
            missing = remote.missing_bytes
            try:
                with _disk_errors(partial), self._clear_errors(what):
                    self._append(remote, progress)
                break
            except _ConnectionFailed as error:
                reason = error
        else:
            raise WeightsError(
                f"{what}: the connection was lost after {format_bytes(remote.bytes - missing)} of "
                f"{format_bytes(remote.bytes)} ({reason}); run the same command again "
                "to resume"
            ) from reason
        partial.replace(remote.path)

    def _append(self, remote: RemoteFile, progress: ShowDownload | None) -> None:
        """Download the missing bytes to the end of the partial file."""
        from huggingface_hub.file_download import http_get

        shown = nullcontext() if progress is None else progress(remote)
        with shown as report, _ReportingFile(remote.partial_path, report) as file:
            present = file.tell()
            if present < remote.bytes:
                http_get(
                    remote.url,
                    file,
                    resume_size=present,
                    headers=self.headers,
                    expected_size=remote.bytes,
                )

    @contextmanager
    def _clear_errors(self, what: str) -> Iterator[None]:
        """Silence huggingface_hub while the block runs and turn its errors into one line.

        Raises:
            WeightsError: The hub refused the request.
            _ConnectionFailed: The hub did not answer, or not completely.
            OSError: The disk failed.
        """
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        hub = self.api.endpoint
        try:
            with _silenced_library():
                yield
        except GatedRepoError as error:
            raise WeightsError(
                f"{what}: accept its terms on {hub} first, then set HF_TOKEN to your token"
            ) from error
        except RepositoryNotFoundError as error:
            raise WeightsError(
                f"{what}: not found on {hub}, or private; set HF_TOKEN to a token that may read it"
            ) from error
        except HfHubHTTPError as error:
            code = error.response.status_code
            fix = "set HF_TOKEN to a token that may read it" if code in {401, 403} else "try later"
            raise WeightsError(f"{what}: {hub} answered with status {code}; {fix}") from error
        except _transport_errors() as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise _ConnectionFailed(str(error).partition("\n")[0]) from error


@contextmanager
def _silenced_library() -> Iterator[None]:
    """Turn off the progress bars and warnings of huggingface_hub while the block runs."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars = "huggingface_hub.http_get"
    show_bars = not are_progress_bars_disabled(bars)
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        if show_bars:
            disable_progress_bars(bars)
        yield
    finally:
        logger.setLevel(level)
        if show_bars:
            enable_progress_bars(bars)


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that a lost connection or an incomplete answer raises.

    `HfHubHTTPError` derives from the base exception of the HTTP library that huggingface_hub uses,
    which depends on its version: requests, httpx or httpx2.
    """
    from huggingface_hub.errors import HfHubHTTPError

    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (*bases, OSError, ValueError)


class _ConnectionFailed(Exception):  # noqa: N818 - caught in this module
    """The hub did not answer, or not completely."""


class _ReportingFile(io.BufferedWriter):
    """A file opened for appending that reports its size after each write."""

    def __init__(self, path: Path, report: ReportBytes | None) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._report = report

    def write(self, data: Any, /) -> int:
        """Append bytes and report the size."""
        count = super().write(data)
        if self._report is not None:
            self._report(self.tell())
        return count
