"""From the Hugging Face hub to an installed model: look up, download, check, convert.

The hub's own `hf_hub_download` throws a part of a file away when it is interrupted (since version
2), so what is used of the package is one layer below: its client for the listing, and `http_get`,
which goes on after a number of bytes. What is kept here is the part, named by the file's checksum.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from av2tsam_cli.errors import Interrupted, WeightsError
from av2tsam_cli.hub.installed import Installed, Source, install, sha256, writing
from av2tsam_cli.hub.locate import home, place
from av2tsam_cli.hub.registry import MODELS, NamedModel, size_text

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

    from av2tsam_cli.model.config import ProjectorKind

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
"""How the names of public checkpoints end."""

TIMEOUT_S = 20.0
"""Seconds without an answer after which the hub counts as unreachable."""

SHOWN = 12
"""How many of a repository's files an error line names."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of the disk, where everything else is the network's."""

Update = Callable[[int], None]
"""Called with the number of bytes that are there."""


@dataclass(frozen=True)
class Remote:
    """One file as the hub's listing has it."""

    model: NamedModel
    """What it will become."""
    file: str
    """Path in the repository."""
    commit: str
    """Of the repository."""
    bytes: int
    """Size."""
    sha256: str | None
    """The checksum that the hub gives, as it does for every large file."""
    url: str = field(repr=False)
    """Where it is."""

    @property
    def path(self) -> Path:
        """Where it is downloaded to; another content has another place."""
        folder = (self.sha256 or self.commit)[:16]
        return home() / "downloads" / folder / PurePosixPath(self.file).name

    @property
    def part(self) -> Path:
        """What there is of it so far."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def missing(self) -> int:
        """Bytes that are not here yet."""
        there = next((p.stat().st_size for p in (self.path, self.part) if p.is_file()), 0)
        return max(self.bytes - there, 0)


Progress = Callable[[Remote], AbstractContextManager[Update | None]]
"""Shows the download of one file for as long as the context lasts."""


def to_fetch(
    name: str, *, force: bool = False, models: Mapping[str, NamedModel] = MODELS
) -> list[NamedModel]:
    """A model and what it needs, without what is installed, unless the first is forced."""
    model = models[name]
    needed = [models[other] for other in model.needs if not place(other).is_file()]
    return ([model] if force or not place(name).is_file() else []) + needed


def pull(
    name: str,
    *,
    file: str | None = None,
    projector: ProjectorKind = "mul",
    force: bool = False,
    models: Mapping[str, NamedModel] = MODELS,
    endpoint: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Installed]:
    """Fetch, check, convert and install a model and what it needs.

    Args:
        name: Of the model.
        file: Path in its repository, where the registry does not know it, or for another one.
        projector: As `convert.convert` takes it.
        force: Fetch the model again though it is installed.
        models: The registry.
        endpoint: Address of the hub; None for the package's own, which is `HF_ENDPOINT`.
        progress: Makes the context in which one file is downloaded; entering it gives what is
            called with the bytes that are there.

    Yields:
        Each model as soon as it is installed.

    Raises:
        WeightsError: The hub cannot be reached or has no such file, the disk is full, or what came
            is damaged or something else. What was installed before stays.
        Interrupted: By the user. What has been downloaded is kept, and the next call goes on.
    """
    wanted = to_fetch(name, force=force, models=models)
    if not wanted:
        return
    try:
        with writing(home() / "downloads"):
            (home() / "downloads").mkdir(parents=True, exist_ok=True)
        with _alone():
            hub = _Hub(endpoint)
            remotes = [hub.look_up(m, file if m.name == name else None, wanted) for m in wanted]
            check_space(remotes)
            for remote in remotes:
                yield _fetch(hub, remote, projector, progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; what was downloaded is kept, `av2tsam models pull {name}` goes on"
        ) from None


def _fetch(
    hub: _Hub,
    remote: Remote,
    projector: ProjectorKind,
    progress: Progress | None,
) -> Installed:
    if not remote.path.is_file():
        hub.download(remote, progress)
    digest = check(remote)
    source = Source(remote.file, digest, remote.model.repository, remote.commit)
    made = install(remote.path, source, wanted=remote.model, overwrite=True, projector=projector)
    shutil.rmtree(remote.path.parent)
    return made


def check(remote: Remote) -> str:
    """Compare a complete download with every checksum that is known for it; returns its own.

    Raises:
        WeightsError: If it is another. The download is removed then.
    """
    digest = sha256(remote.path)
    for known, whose in ((remote.sha256, "the hub"), (remote.model.sha256, "this tool")):
        if known is not None and digest != known:
            remote.path.unlink()
            raise WeightsError(
                f"{remote.file} of {remote.model.repository}: its sha256 is {digest}, but {whose} "
                f"knows it as {known}; it was deleted, run again to fetch it anew"
            )
    return digest


def check_space(remotes: Sequence[Remote]) -> None:
    """Make sure that all results and the largest download fit on the disk together.

    Raises:
        WeightsError: If they do not.
    """
    needed = sum(remote.bytes for remote in remotes) + max(remote.missing for remote in remotes)
    free = shutil.disk_usage(home()).free
    if needed > free:
        raise WeightsError(
            f"{home()}: {size_text(needed)} are needed to download and convert, but "
            f"{size_text(free)} are free; free some space or set AV2TSAM_HOME to another disk"
        )


def choose(
    model: NamedModel, file: str | None, info: ModelInfo, models: Mapping[str, NamedModel] = MODELS
) -> RepoSibling:
    """The file of a repository that is to be fetched: the one named, else the only fitting one.

    Raises:
        WeightsError: If there is none, or more than one.
    """
    there = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    named = file or model.file
    if named is not None and named in there:
        return there[named]
    towers = {m.file for m in models.values() if m.parts in {("clip",), ("clap",)}}
    fitting = [
        name for name in there if name.endswith(WEIGHTS) and PurePosixPath(name).name not in towers
    ]
    if named is None and len(fitting) == 1:
        return there[fitting[0]]
    if named is not None:
        holds = f"holds no {named}, but {_some(there)}"
    elif fitting:
        holds = f"holds several files that could be it: {_some(fitting)}"
    else:
        holds = f"holds no weights that could be it, but {_some(there)}"
    raise WeightsError(
        f"{model.name}: {model.repository} {holds}; pick one with "
        f"`av2tsam models pull {model.name} --file NAME`"
    )


def _some(names: Iterable[str]) -> str:
    """A few names, for an error line."""
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") or "nothing"


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time download into the folder."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # exported lazily

    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(home() / "downloads" / ".lock", timeout=1.0))
        except TimeoutError as error:
            raise WeightsError(
                f"{home()}: another av2tsam is fetching models; wait for it, then run again"
            ) from error
        yield


class _Hub:
    """The hub's client, with its errors as lines of ours."""

    def __init__(self, endpoint: str | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
            build_hf_headers,
            disable_progress_bars,
        )

        disable_progress_bars()  # the console has one, and says what went wrong
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        # False: never the token that another tool has stored.
        token = os.environ.get("HF_TOKEN") or False
        us = version("av2tsam")
        self.api = HfApi(endpoint, token, library_name="av2tsam", library_version=us)
        self.headers = build_hf_headers(token=token, library_name="av2tsam", library_version=us)
        self.headers["Accept-Encoding"] = "identity"  # bytes are counted, and gone on from

    def look_up(self, model: NamedModel, file: str | None, wanted: Sequence[NamedModel]) -> Remote:
        """Find a model's file, its size and its checksum.

        Raises:
            WeightsError: If the hub cannot be reached, or has no such repository or file.
        """
        from huggingface_hub import hf_hub_url

        repository = model.repository
        if repository is None:
            raise WeightsError(f"{model.name} comes with the package; install the package again")
        try:
            with self._answers(repository):
                info = self.api.model_info(
                    repository, revision=model.revision, files_metadata=True, timeout=TIMEOUT_S
                )
        except _Unreachable as error:
            raise WeightsError(_by_hand(self.api.endpoint, str(error), wanted)) from error
        found = choose(model, file, info)
        if info.sha is None or found.size is None:
            raise WeightsError(
                f"{self.api.endpoint}: does not give the size of {repository}'s files"
            )
        return Remote(
            model=model,
            file=found.rfilename,
            commit=info.sha,
            bytes=found.size,
            sha256=found.lfs.sha256 if found.lfs else None,
            url=hf_hub_url(
                repository, found.rfilename, revision=info.sha, endpoint=self.api.endpoint
            ),
        )

    def download(self, remote: Remote, progress: Progress | None) -> None:
        """Download a file, or the rest of it, and give it its name.

        Raises:
            WeightsError: If the connection breaks for good, or the disk is full.
        """
        what = f"{remote.file} of {remote.model.repository}"
        with writing(remote.part):
            remote.part.parent.mkdir(parents=True, exist_ok=True)
        if remote.part.is_file() and remote.part.stat().st_size > remote.bytes:
            remote.part.unlink()
        missing = remote.bytes + 1
        while remote.missing < missing:  # as long as every attempt brings something
            missing = remote.missing
            try:
                with writing(remote.part), self._answers(what):
                    self._append(remote, progress)
                break
            except _Unreachable as error:
                reason = error
        else:
            here = size_text(remote.bytes - missing)
            raise WeightsError(
                f"{what}: broke off after {here} of {size_text(remote.bytes)} ({reason}); "
                f"`av2tsam models pull {remote.model.name}` goes on from there"
            ) from reason
        remote.part.replace(remote.path)

    def _append(self, remote: Remote, progress: Progress | None) -> None:
        from huggingface_hub.file_download import http_get

        shown = nullcontext() if progress is None else progress(remote)
        with shown as update, _Counted(remote.part, update) as file:
            if (there := file.tell()) < remote.bytes:
                http_get(
                    remote.url,
                    file,
                    resume_size=there,
                    headers=self.headers,
                    expected_size=remote.bytes,
                )

    @contextmanager
    def _answers(self, what: str) -> Iterator[None]:
        """Turn what the hub's client raises into one line.

        Raises:
            WeightsError: The hub has answered, and refuses.
            _Unreachable: It has not answered to the end.
            OSError: The disk is full.
        """
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        hub = self.api.endpoint
        try:
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
            mend = "set HF_TOKEN to a token that may read it" if code in {401, 403} else "try later"
            raise WeightsError(f"{what}: {hub} answered {code}; {mend}") from error
        except _transport_errors() as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            raise _Unreachable(str(error).partition("\n")[0]) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a broken connection raises, and an answer that is none.

    The hub's error has among its bases the root of the errors of the HTTP library that this version
    of the package is built on: requests, httpx or httpx2.
    """
    from huggingface_hub.errors import HfHubHTTPError

    roots = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (*roots, OSError, ValueError)


class _Unreachable(Exception):  # noqa: N818 - never seen outside
    """The hub has not answered, or not to the end."""


def _by_hand(hub: str, why: str, wanted: Sequence[NamedModel]) -> str:
    """What would be fetched from where, and how to do without."""
    origins = "; ".join(model.origin for model in wanted)
    return (
        f"{wanted[0].name}: {hub} cannot be reached ({why}); would fetch: {origins}; get them "
        "by hand, then run `av2tsam models convert FILE` on each"
    )


class _Counted(io.BufferedWriter):
    """Appends to a file and says how long it is."""

    def __init__(self, path: Path, update: Update | None) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._update = update

    def write(self, data: Any, /) -> int:
        """Append some bytes."""
        count = super().write(data)
        if self._update is not None:
            self._update(self.tell())
        return count
