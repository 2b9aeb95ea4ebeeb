"""Installing models from the hub: complete or not at all, keeping what was installed before."""

import dataclasses
import hashlib
import io
import json
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

from av2tsam_cli.embeddings.text import BpeKind
from av2tsam_cli.errors import Interrupted, WeightsError
from av2tsam_cli.hub import download, installed
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.registry import MODELS, NamedModel
from av2tsam_cli.model.av2tsam import Av2tSam, build

from ..fake_hub import COMMIT, Hub
from ..tiny import TINY, reference_state, sentencepiece_model, shake, tiny_bpe

REPOSITORY = "authors/tiny"
CHUNK = 10_000
PARTS = ("projector", "adapter", "text_sam")
NETWORK = NamedModel(
    name="tiny",
    purpose="tests",
    licence="none",
    parts=PARTS,
    repository=REPOSITORY,
    file="tiny.pth",
    size=300_000,
    needs=("beit3-tokenizer",),
    config=TINY,
)
TOKENIZER = dataclasses.replace(
    MODELS["beit3-tokenizer"], repository=REPOSITORY, file="pieces.model", sha256=None
)
CLAP = dataclasses.replace(MODELS["clap-microsoft"], repository="else/where")
REGISTRY = {model.name: model for model in (NETWORK, TOKENIZER, CLAP)}


@pytest.fixture(scope="module")
def network() -> Av2tSam:
    torch.manual_seed(0)
    model = build(TINY).eval()
    shake(model)
    return model


@pytest.fixture(scope="module")
def published(network: Av2tSam) -> bytes:
    """Return the authors' file."""
    file = io.BytesIO()
    torch.save(reference_state(network), file)
    return file.getvalue()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def pull(
    hub: Hub, home: Path, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[installed.InstalledModel]]:
    """Pull from a hub that has the network, its tokenizer and another file."""
    # By default huggingface_hub writes 10 MB at a time, more than these files have.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    files = {"README.md": b"", "tiny.pth": published, "pieces.model": sentencepiece_model()}
    hub.repositories = {REPOSITORY: files}

    def run(name: str = "tiny", **options: Any) -> list[installed.InstalledModel]:
        options = {"models": REGISTRY, "endpoint": hub.url, **options}
        return list(download.pull(name, **options))

    return run


Pull = Callable[..., list[installed.InstalledModel]]


def files_in(home: Path) -> set[str]:
    """Return the names of all files except the lock."""
    return {path.name for path in home.rglob("*") if path.is_file() and path.name != ".lock"}


def test_pull_downloads_converts_and_records(
    pull: Pull, home: Path, network: Av2tSam, published: bytes
) -> None:
    made, tokenizer = pull()
    assert made.path == home / "tiny.safetensors"
    loaded = load_network(made.path, parts=PARTS).state_dict()
    for name, tensor in network.state_dict().items():
        if name.startswith(PARTS):
            assert torch.equal(loaded[name], tensor), name
    record = json.loads((home / "tiny.json").read_text())
    assert record["source"] == {
        "file": "tiny.pth",
        "sha256": hashlib.sha256(published).hexdigest(),
        "repository": REPOSITORY,
        "revision": COMMIT,
    }
    assert record["sha256"] == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert record["bytes"] == made.path.stat().st_size
    assert record["tool"].startswith("av2tsam ")
    assert tokenizer.path == home / "beit3-tokenizer.spm"
    # The downloads have been deleted.
    assert files_in(home) == {
        "tiny.safetensors",
        "tiny.json",
        "beit3-tokenizer.spm",
        "beit3-tokenizer.json",
    }


def test_installed_models_are_downloaded_again_only_with_force(pull: Pull, hub: Hub) -> None:
    pull("beit3-tokenizer")
    assert [made.record.name for made in pull()] == ["tiny"]
    count = len(hub.requests)
    assert pull() == []
    assert len(hub.requests) == count
    assert [made.record.name for made in pull(force=True)] == ["tiny"]
    assert len(hub.requests) > count


def test_lost_connection_is_resumed(pull: Pull, hub: Hub, published: bytes) -> None:
    assert len(published) > 20 * CHUNK
    hub.cuts = [17 * CHUNK + 5]
    pull()
    assert hub.ranges()[:2] == [None, f"bytes={17 * CHUNK}-"]


def test_next_call_resumes_a_failed_download(pull: Pull, hub: Hub, home: Path) -> None:
    hub.cuts = [7 * CHUNK, -1]
    with pytest.raises(
        WeightsError, match=r"tiny\.pth from authors/tiny: .* answered with status 503"
    ):
        pull()
    assert files_in(home) == {"tiny.pth.part"}
    hub.requests.clear()
    assert len(pull()) == 2
    assert hub.ranges()[0] == f"bytes={7 * CHUNK}-"


def test_download_that_ends_early_is_not_complete(
    pull: Pull, hub: Hub, home: Path, published: bytes
) -> None:
    hub.sizes["tiny.pth"] = 2 * len(published)
    with pytest.raises(WeightsError, match=r"lost after 362 kB of 724 kB .* to resume"):
        pull()
    assert files_in(home) == {"tiny.pth.part"}


def test_ctrl_c_keeps_the_partial_download(pull: Pull, hub: Hub, home: Path) -> None:
    @contextmanager
    def shown(remote: download.RemoteFile) -> Iterator[Callable[[int], None]]:
        def update(count: int) -> None:
            if count == 3 * CHUNK:
                raise KeyboardInterrupt

        assert remote.file == "tiny.pth"
        yield update

    with pytest.raises(Interrupted, match="is kept"):
        pull(progress=shown)
    assert files_in(home) == {"tiny.pth.part"}
    hub.requests.clear()
    assert len(pull()) == 2
    assert hub.ranges()[0] == f"bytes={3 * CHUNK}-"


def test_wrong_checksum_is_rejected_and_the_installed_model_kept(
    pull: Pull, hub: Hub, home: Path
) -> None:
    (made, _) = pull()
    before = made.path.read_bytes()
    hub.digests["tiny.pth"] = "5" * 64
    with pytest.raises(
        WeightsError, match=r"tiny\.pth from authors/tiny: its sha256 is .* the hub"
    ):
        pull(force=True)
    assert made.path.read_bytes() == before
    assert installed.verify("tiny") == "ok"
    assert not any(name.startswith("tiny.pth") for name in files_in(home))
    hub.digests.clear()
    assert len(pull(force=True)) == 1
    assert installed.verify("tiny") == "ok"


def test_checksum_of_the_registry_is_compared_too(pull: Pull, home: Path) -> None:
    known = dataclasses.replace(NETWORK, sha256="7" * 64)
    with pytest.raises(WeightsError, match=f"this tool lists {'7' * 64}"):
        pull(models={**REGISTRY, "tiny": known})
    assert not files_in(home)


def test_another_model_than_expected_is_not_installed(pull: Pull, hub: Hub, home: Path) -> None:
    other = dataclasses.replace(NETWORK, name="other")
    with pytest.raises(WeightsError, match="contains tiny, not other"):
        pull("other", models={**REGISTRY, "other": other})
    assert not list(home.glob("*.safetensors"))


def test_corrupted_file_is_not_installed(pull: Pull, hub: Hub, home: Path) -> None:
    pull()
    hub.repositories[REPOSITORY]["tiny.pth"] = b"not weights"
    with pytest.raises(WeightsError, match="corrupted"):
        pull(force=True)
    assert installed.verify("tiny") == "ok"


def test_only_weights_file_is_used_if_its_name_is_unknown(pull: Pull, hub: Hub) -> None:
    unknown = {**REGISTRY, "tiny": dataclasses.replace(NETWORK, file=None)}
    files = hub.repositories[REPOSITORY]
    files[f"pretrained/{CLAP.file}"] = b"an audio encoder in the same repository"
    (made, _) = pull(models=unknown)
    assert made.record.source.file == "tiny.pth"


def test_only_weights_file_is_used_if_its_name_is_uncertain(pull: Pull, hub: Hub) -> None:
    uncertain = dataclasses.replace(NETWORK, file="model.pth", unverified="file name")
    with pytest.raises(WeightsError, match=r"has no file other\.pth"):
        pull(models={**REGISTRY, "tiny": uncertain}, file="other.pth")
    (made, _) = pull(models={**REGISTRY, "tiny": uncertain})
    assert made.record.source.file == "tiny.pth"


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_tokenizers_of_the_text_encoders_are_installed(
    pull: Pull, hub: Hub, home: Path, kind: BpeKind
) -> None:
    name = f"{kind}-tokenizer"
    hub.repositories["else/where"] = {"tokenizer.json": tiny_bpe(kind), "model.safetensors": b""}
    models = {name: dataclasses.replace(MODELS[name], repository="else/where")}
    (made,) = pull(name, models=models)
    assert made.path == home / f"{name}.bpe"
    assert made.path.read_bytes() == tiny_bpe(kind)
    assert installed.verify(name) == "ok"
    hub.repositories["else/where"]["tokenizer.json"] = tiny_bpe(
        "gpt2" if kind == "roberta" else "roberta"
    )
    with pytest.raises(WeightsError, match=f"not {name}"):
        pull(name, models=models, force=True)
    assert installed.verify(name) == "ok"


def test_error_for_several_weights_files_lists_them(pull: Pull, hub: Hub) -> None:
    unknown = {**REGISTRY, "tiny": dataclasses.replace(NETWORK, file=None)}
    files = hub.repositories[REPOSITORY]
    files["best/ms3.pth"] = files["tiny.pth"]
    with pytest.raises(WeightsError, match=r"best/ms3\.pth, .*tiny\.pth; pick one with .*--file"):
        pull(models=unknown)
    (made, _) = pull(models=unknown, file="best/ms3.pth")
    assert made.record.source.file == "best/ms3.pth"


def test_repository_without_weights_for_the_model(pull: Pull, hub: Hub) -> None:
    unknown = {**REGISTRY, "tiny": dataclasses.replace(NETWORK, file=None)}
    hub.repositories[REPOSITORY] = {"README.md": b"", f"{CLAP.file}": b"an audio encoder"}
    with pytest.raises(WeightsError, match="no weights for this model; it contains CLAP_weights"):
        pull(models=unknown)
    assert not hub.files_requested()


def test_file_that_the_repository_does_not_have(pull: Pull) -> None:
    with pytest.raises(
        WeightsError, match=r"has no file s4\.pth; it contains README\.md, pieces\.model"
    ):
        pull(file="s4.pth")


@pytest.mark.parametrize(
    ("code", "message"),
    [(404, "not found on"), (401, "set HF_TOKEN"), (403, "its terms"), (500, "500")],
)
def test_refused_repository(pull: Pull, hub: Hub, code: int, message: str) -> None:
    hub.status[REPOSITORY] = code
    with pytest.raises(WeightsError, match=rf"authors/tiny: .*{message}"):
        pull()


def test_without_a_connection_the_error_lists_what_to_download_by_hand(
    pull: Pull, home: Path
) -> None:
    with pytest.raises(
        WeightsError,
        match=r"127\.0\.0\.1:9 cannot be reached \(.*\); .*'av2tsam models convert FILE': "
        r"tiny\.pth from huggingface\.co/authors/tiny \(300 kB\); pieces\.model from .*$",
    ):
        pull(endpoint="http://127.0.0.1:9")
    assert not files_in(home)


def test_pull_leaves_the_settings_of_huggingface_hub_unchanged(pull: Pull, hub: Hub) -> None:
    logger = logging.getLogger("huggingface_hub")
    logger.setLevel(logging.WARNING)
    enable_progress_bars()
    models = download.pull("tiny", models=REGISTRY, endpoint=hub.url)
    for _ in models:  # also between two models
        assert logger.level == logging.WARNING
        assert not are_progress_bars_disabled("huggingface_hub.http_get")
    assert len(hub.files_requested()) == 2


@pytest.mark.parametrize("token", [None, "hf_secret"])
def test_token_comes_only_from_the_environment(
    pull: Pull, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    pull("beit3-tokenizer")
    expected = f"Bearer {token}" if token else None
    assert [headers.get("authorization") for _, headers in hub.requests] == [expected, expected]


def test_lack_of_disk_space_is_found_before_the_download(pull: Pull, hub: Hub, home: Path) -> None:
    hub.sizes["tiny.pth"] = 10**16
    with pytest.raises(WeightsError, match=r"20000000 GB are needed .* are free"):
        pull()
    assert not hub.files_requested()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_full_during_the_download(pull: Pull, hub: Hub, home: Path) -> None:
    with (
        files_up_to(5 * CHUNK),
        pytest.raises(WeightsError, match=r"cannot be written .*AV2TSAM_HOME"),
    ):
        pull()
    assert files_in(home) == {"tiny.pth.part"}
    hub.requests.clear()
    assert len(pull()) == 2
    assert hub.ranges()[0] == f"bytes={5 * CHUNK}-"


def test_disk_full_during_the_conversion(
    pull: Pull, home: Path, published: bytes, tmp_path: Path
) -> None:
    (made, _) = pull()
    before = made.path.read_bytes()
    by_hand = tmp_path / "tiny.pth"
    by_hand.write_bytes(published)
    origin = installed.Origin(str(by_hand), None)
    with files_up_to(1000), pytest.raises(WeightsError, match="cannot be written"):
        installed.install(by_hand, origin, expected=NETWORK, overwrite=True)
    assert made.path.read_bytes() == before
    assert installed.verify("tiny") == "ok"
    assert not [name for name in files_in(home) if name.endswith(".part")]


def test_two_processes_do_not_download_at_the_same_time(pull: Pull, hub: Hub, home: Path) -> None:
    first = download.pull("tiny", models=REGISTRY, endpoint=hub.url)
    next(first)
    with pytest.raises(WeightsError, match="another av2tsam is downloading"):
        pull("beit3-tokenizer")
    assert len(list(first)) == 1
