"""Models come from the hub, whole, or not at all; what was there before stays."""

import dataclasses
import hashlib
import io
import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from av2tsam_cli.errors import Interrupted, WeightsError
from av2tsam_cli.hub import download, installed
from av2tsam_cli.hub.checkpoint import load_network
from av2tsam_cli.hub.registry import MODELS, NamedModel
from av2tsam_cli.model.av2tsam import Av2tSam, build

from ..fake_hub import COMMIT, Hub
from ..tiny import TINY, reference_state, sentencepiece_model, shake

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
    MODELS["beit3-tokenizer"], repository=REPOSITORY, file="pieces.model"
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
    """The authors' file."""
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
) -> Callable[..., list[installed.Installed]]:
    """Pull from a hub that has the network and its tokenizer, among other files."""
    # The hub's package writes 10 MB at a time, more than there is here.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
    files = {"README.md": b"", "tiny.pth": published, "pieces.model": sentencepiece_model()}
    hub.repositories = {REPOSITORY: files}

    def run(name: str = "tiny", **options: Any) -> list[installed.Installed]:
        options = {"models": REGISTRY, "endpoint": hub.url, **options}
        return list(download.pull(name, **options))

    return run


Pull = Callable[..., list[installed.Installed]]


def left_in(home: Path) -> set[str]:
    """Files that are there, but for the lock."""
    return {path.name for path in home.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_network_is_fetched_converted_and_recorded(
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
    # The downloads are gone.
    assert left_in(home) == {
        "tiny.safetensors",
        "tiny.json",
        "beit3-tokenizer.spm",
        "beit3-tokenizer.json",
    }


def test_what_is_installed_is_not_fetched_again_unless_forced(pull: Pull, hub: Hub) -> None:
    pull("beit3-tokenizer")
    assert [made.record.name for made in pull()] == ["tiny"]
    asked = len(hub.asked)
    assert pull() == []
    assert len(hub.asked) == asked
    assert [made.record.name for made in pull(force=True)] == ["tiny"]
    assert len(hub.asked) > asked


def test_a_connection_that_breaks_is_taken_up_again(pull: Pull, hub: Hub, published: bytes) -> None:
    assert len(published) > 20 * CHUNK
    hub.cuts = [17 * CHUNK + 5]
    pull()
    assert hub.ranges()[:2] == [None, f"bytes={17 * CHUNK}-"]


def test_the_next_call_goes_on_where_a_broken_one_ended(pull: Pull, hub: Hub, home: Path) -> None:
    hub.cuts = [7 * CHUNK, -1]
    with pytest.raises(WeightsError, match=r"tiny\.pth of authors/tiny: .* answered 503"):
        pull()
    assert left_in(home) == {"tiny.pth.part"}
    hub.asked.clear()
    assert len(pull()) == 2
    assert hub.ranges()[0] == f"bytes={7 * CHUNK}-"


def test_a_file_that_ends_early_is_not_taken_as_done(
    pull: Pull, hub: Hub, home: Path, published: bytes
) -> None:
    hub.sizes["tiny.pth"] = 2 * len(published)
    with pytest.raises(WeightsError, match=r"broke off after 362 kB of 724 kB .* goes on from"):
        pull()
    assert left_in(home) == {"tiny.pth.part"}


def test_ctrl_c_keeps_what_there_is(pull: Pull, hub: Hub, home: Path) -> None:
    @contextmanager
    def shown(remote: download.Remote) -> Iterator[Callable[[int], None]]:
        def update(count: int) -> None:
            if count == 3 * CHUNK:
                raise KeyboardInterrupt

        assert remote.file == "tiny.pth"
        yield update

    with pytest.raises(Interrupted, match="is kept"):
        pull(progress=shown)
    assert left_in(home) == {"tiny.pth.part"}
    hub.asked.clear()
    assert len(pull()) == 2
    assert hub.ranges()[0] == f"bytes={3 * CHUNK}-"


def test_a_wrong_checksum_is_refused_and_what_was_there_stays(
    pull: Pull, hub: Hub, home: Path
) -> None:
    (made, _) = pull()
    before = made.path.read_bytes()
    hub.digests["tiny.pth"] = "5" * 64
    with pytest.raises(WeightsError, match=r"tiny\.pth of authors/tiny: its sha256 is .* the hub"):
        pull(force=True)
    assert made.path.read_bytes() == before
    assert installed.verify("tiny") == "ok"
    assert not any(name.startswith("tiny.pth") for name in left_in(home))
    hub.digests.clear()
    assert len(pull(force=True)) == 1
    assert installed.verify("tiny") == "ok"


def test_a_checksum_that_is_known_beforehand_counts_too(pull: Pull, home: Path) -> None:
    known = dataclasses.replace(NETWORK, sha256="7" * 64)
    with pytest.raises(WeightsError, match=f"this tool knows it as {'7' * 64}"):
        pull(models={**REGISTRY, "tiny": known})
    assert not left_in(home)


def test_what_is_something_else_is_not_installed(pull: Pull, hub: Hub, home: Path) -> None:
    other = dataclasses.replace(NETWORK, name="other")
    with pytest.raises(WeightsError, match="holds tiny, not other"):
        pull("other", models={**REGISTRY, "other": other})
    assert not list(home.glob("*.safetensors"))


def test_a_damaged_file_is_not_installed(pull: Pull, hub: Hub, home: Path) -> None:
    pull()
    hub.repositories[REPOSITORY]["tiny.pth"] = b"not weights"
    with pytest.raises(WeightsError, match="damaged"):
        pull(force=True)
    assert installed.verify("tiny") == "ok"


def test_the_only_fitting_file_is_taken_where_its_name_is_not_known(pull: Pull, hub: Hub) -> None:
    unknown = {**REGISTRY, "tiny": dataclasses.replace(NETWORK, file=None)}
    files = hub.repositories[REPOSITORY]
    files[f"pretrained/{CLAP.file}"] = b"the hearing, which the repository has too"
    (made, _) = pull(models=unknown)
    assert made.record.source.file == "tiny.pth"


def test_several_fitting_files_are_named(pull: Pull, hub: Hub) -> None:
    unknown = {**REGISTRY, "tiny": dataclasses.replace(NETWORK, file=None)}
    files = hub.repositories[REPOSITORY]
    files["best/ms3.pth"] = files["tiny.pth"]
    with pytest.raises(WeightsError, match=r"best/ms3\.pth, .*tiny\.pth; pick one with .*--file"):
        pull(models=unknown)
    (made, _) = pull(models=unknown, file="best/ms3.pth")
    assert made.record.source.file == "best/ms3.pth"


def test_a_repository_with_nothing_that_fits(pull: Pull, hub: Hub) -> None:
    unknown = {**REGISTRY, "tiny": dataclasses.replace(NETWORK, file=None)}
    hub.repositories[REPOSITORY] = {"README.md": b"", f"{CLAP.file}": b"the hearing"}
    with pytest.raises(WeightsError, match="holds no weights that could be it, but CLAP_weights"):
        pull(models=unknown)
    assert not hub.files_asked()


def test_a_file_that_is_not_there(pull: Pull) -> None:
    with pytest.raises(WeightsError, match=r"holds no s4\.pth, but README\.md, pieces\.model"):
        pull(file="s4.pth")


@pytest.mark.parametrize(
    ("code", "says"),
    [(404, "not found on"), (401, "set HF_TOKEN"), (403, "its terms"), (500, "500")],
)
def test_a_repository_that_cannot_be_had(pull: Pull, hub: Hub, code: int, says: str) -> None:
    hub.status[REPOSITORY] = code
    with pytest.raises(WeightsError, match=rf"authors/tiny: .*{says}"):
        pull()


def test_without_a_connection_the_line_says_what_would_be_fetched(pull: Pull, home: Path) -> None:
    with pytest.raises(
        WeightsError,
        match=r"127\.0\.0\.1:9 cannot be reached \(.*\); would fetch: tiny\.pth of authors/tiny, "
        r"300 kB; pieces\.model of authors/tiny; .*`av2tsam models convert FILE`",
    ):
        pull(endpoint="http://127.0.0.1:9")
    assert not left_in(home)


@pytest.mark.parametrize("token", [None, "hf_secret"])
def test_a_token_is_sent_only_where_the_environment_has_one(
    pull: Pull, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    pull("beit3-tokenizer")
    expected = f"Bearer {token}" if token else None
    assert [headers.get("authorization") for _, headers in hub.asked] == [expected, expected]


def test_a_disk_that_is_too_small_is_seen_before_the_download(
    pull: Pull, hub: Hub, home: Path
) -> None:
    hub.sizes["tiny.pth"] = 10**16
    with pytest.raises(WeightsError, match=r"20000000 GB are needed .* are free"):
        pull()
    assert not hub.files_asked()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Within this, no file of this process can grow beyond some bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_gets_full_during_the_download(pull: Pull, hub: Hub, home: Path) -> None:
    with (
        files_up_to(5 * CHUNK),
        pytest.raises(WeightsError, match=r"cannot be written .*free some"),
    ):
        pull()
    assert left_in(home) == {"tiny.pth.part"}
    hub.asked.clear()
    assert len(pull()) == 2
    assert hub.ranges()[0] == f"bytes={5 * CHUNK}-"


def test_a_disk_that_gets_full_during_the_conversion(
    pull: Pull, home: Path, published: bytes, tmp_path: Path
) -> None:
    (made, _) = pull()
    before = made.path.read_bytes()
    by_hand = tmp_path / "tiny.pth"
    by_hand.write_bytes(published)
    source = installed.Source(str(by_hand), None)
    with files_up_to(1000), pytest.raises(WeightsError, match="cannot be written"):
        installed.install(by_hand, source, wanted=NETWORK, overwrite=True)
    assert made.path.read_bytes() == before
    assert installed.verify("tiny") == "ok"
    assert not [name for name in left_in(home) if name.endswith(".part")]


def test_two_at_a_time_do_not_get_into_each_others_way(pull: Pull, hub: Hub, home: Path) -> None:
    first = download.pull("tiny", models=REGISTRY, endpoint=hub.url)
    next(first)
    with pytest.raises(WeightsError, match="another av2tsam is fetching"):
        pull("beit3-tokenizer")
    assert len(list(first)) == 1
