"""Files in a store, with a server on this computer that speaks the protocol of S3."""

import json
import logging
import os
import pickle
import re
import ssl
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fsspec.registry import _registry
from fsspec.spec import AbstractFileSystem
from s3fs import S3FileSystem

from av2tsam_cli import stores
from av2tsam_cli.__main__ import main
from av2tsam_cli.cli.inputs import InputOptions, find_inputs
from av2tsam_cli.cluster.tasks import Task, run_task
from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.job import Input, JobRunner, SegmentJob
from av2tsam_cli.network import NetworkPath, input_path
from av2tsam_cli.options import ModelOptions
from av2tsam_cli.pipeline import iter_masks
from av2tsam_cli.segment_options import SegmentOptions
from av2tsam_cli.staging import Staging
from av2tsam_cli.stores import check_url, download, look_up, upload_file, upload_folder

from .object_store import ObjectStore, Proxy

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]


@pytest.fixture
def clip(make_clip: MakeClip, tone: Tone) -> Path:
    return make_clip(rate=4, sounds=[{"samples": tone(1.0)}])


class Segment:
    """Runs `av2tsam segment` with the tiny model."""

    def __init__(self, model: Path, staging: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model, self.staging, self.capsys = model, staging, capsys
        self.error = ""
        self.records: list[dict[str, Any]] = []

    def __call__(self, *words: str) -> int:
        options = ["--json", "--device", "cpu", "--model", str(self.model)]
        code = main(["segment", *words, *options, "--staging", str(self.staging)])
        printed = self.capsys.readouterr()
        self.error = printed.err
        self.records = [json.loads(line) for line in printed.out.splitlines()]
        assert list(self.staging.iterdir()) == []
        assert str(self.staging) not in printed.err.replace(f"copy in {self.staging}", "")
        assert str(self.staging) not in printed.out.replace(f"copy in {self.staging}", "")
        return code


@pytest.fixture
def segment(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Segment:
    staging = tmp_path / "staging"
    staging.mkdir()
    return Segment(tiny_model, staging, capsys)


def found(*words: str, recursive: bool = False, out: str | None = None) -> dict[str, str]:
    inputs = find_inputs(
        words, InputOptions(recursive=recursive), out=None if out is None else NetworkPath.of(out)
    )
    return {str(each.path): str(each.name) for each in inputs}


def test_folders_and_patterns_of_a_store(store: ObjectStore, tmp_path: Path) -> None:
    for key in ("a.mp4", "day1/b.mp4", "day1/cam/c.MOV", "day1/x.txt", ".h.mp4", ".d/h.mp4"):
        store.put(f"clips/{key}", b"video")
    store.put("clips/out/a.mp4", b"result")
    root = "s3://bucket/clips"
    first, second = {f"{root}/a.mp4": "a"}, {f"{root}/day1/b.mp4": "day1/b"}
    third = {f"{root}/day1/cam/c.MOV": "day1/cam/c"}
    assert found(root) == found(f"{root}/") == first
    assert found(f"{root}/", recursive=True, out=f"{root}/out") == first | second | third
    assert found(f"{root}/out/", out=f"{root}/out") == {f"{root}/out/a.mp4": "a"}
    assert found(f"{root}/**/*.mp4", out=f"{root}/out/") == first | second
    assert found(f"{root}/*/?.mp4", out=f"{root}/out/") == second
    assert found(f"{root}/day1/x.txt", f"{root}/a.mp4", f"{root}/a.mp4") == first | {
        f"{root}/day1/x.txt": "x"
    }
    for nothing in (f"{root}/none/", f"{root}/*.avi", "s3://bucket/none.mp4"):
        assert list(found(nothing)) == [nothing]
        with pytest.raises(UsageError, match=f"{re.escape(nothing)}: no such file"):
            look_up(nothing)
    names = tmp_path / "names.txt"
    names.write_text(f"{root}/a.mp4\nhttps://example.org/b.mp4\n")
    listed = find_inputs([], InputOptions(files_from=names))
    assert [(str(each.path), str(each.name)) for each in listed] == [
        (f"{root}/a.mp4", "a"),
        ("https://example.org/b.mp4", "b"),
    ]
    store.put("clips/b[1].mp4", b"video")
    assert found(f"{root}/b[1].mp4") == {f"{root}/b[1].mp4": "b[1]"}


def test_names_in_a_store_lead_nowhere_else(
    store: ObjectStore, segment: Segment, clip: Path
) -> None:
    store.put("clips//day1/a.mp4", clip)
    assert found("s3://bucket/clips/", recursive=True) == {
        "s3://bucket/clips//day1/a.mp4": "day1/a"
    }
    words = [store.put("a.mp4", clip), "-o", "s3://bucket/out", "-f", "masks", "--overwrite"]
    store.put("out/a//nowhere/x.json", b"{}")
    assert segment(*words) == 2
    assert "s3://bucket/out/a: contains other files (nowhere)" in segment.error
    assert not Path("/nowhere").exists()


def test_results_are_those_of_local_files(
    store: ObjectStore, segment: Segment, clip: Path, tmp_path: Path
) -> None:
    local, url = tmp_path / "local", store.put("clips/a.mp4", clip)
    assert segment(str(clip), "-o", str(local), "-f", "masks", "--end", "0.5") == 0
    assert segment(url, "-o", "s3://bucket/out", "-f", "masks", "--end", "0.5") == 0
    (record,) = segment.records
    assert (record["input"], record["outputs"]) == (url, ["s3://bucket/out/a"])
    assert "s3://bucket/out/a: 2 frames" in segment.error
    names = ["000000.png", "000001.png"]
    assert store.keys[1:] == [f"out/a/{name}" for name in [*names, "av2tsam.json"]]
    for name in names:
        assert store.get(f"out/a/{name}") == (local / "clip" / name).read_bytes()
    expected = [each.mask for each in iter_masks(clip, model=segment.model, end=0.5)]
    copied = [each.mask for each in iter_masks(url, model=segment.model, end=0.5)]
    np.testing.assert_array_equal(copied, expected)


def test_a_video_with_side_files(store: ObjectStore, segment: Segment, clip: Path) -> None:
    url = store.put("a.mp4", clip)
    sides = ["--events", "s3://bucket/out/a.otio", "--report", "s3://bucket/pages/a.html"]
    words = [url, "-o", "s3://bucket/out/a.mp4", *sides, "--fps", "1"]
    assert segment(*words) == 0
    keys = ["out/a.mp4", "out/a.otio", "pages/a.html"]
    assert segment.records[0]["outputs"] == [f"s3://bucket/{key}" for key in keys]
    assert store.keys == sorted(["a.mp4", *keys])
    page = store.get("pages/a.html").decode()
    assert "../out/a.mp4" in page
    for text in (page, timeline := store.get("out/a.otio").decode()):
        assert str(segment.staging) not in text
    assert f'"target_url": "{url}"' in timeline
    assert segment(*words, "--skip-existing") == 0
    assert segment.records[0]["status"] == "skipped"
    assert segment(*words) == 2
    assert "s3://bucket/out/a.mp4: already exists; set --overwrite" in segment.error
    assert segment(url, "-o", url, "--overwrite") == 2
    assert f"{url}: is the input itself" in segment.error


def test_existing_results_are_compared_without_copying_videos(
    store: ObjectStore, proxy: Proxy, segment: Segment, clip: Path
) -> None:
    padded = clip.read_bytes() + b"\0\x10\0\0free" + bytes((1 << 20) - 8)
    url = store.put("clips/a.mp4", padded)
    words = [url, "-o", "s3://bucket/out", "-f", "video", "--fps", "1", "--skip-existing"]
    assert segment(*words) == 0
    proxy.received = 0
    assert segment(*words) == 0
    assert segment.records[0]["status"] == "skipped"
    assert proxy.received < 1 << 17
    store.put("clips/a.mp4", padded[: len(padded) // 2])
    assert segment(*words) == 2
    assert "already exists, but was made from another input; set --overwrite" in segment.error
    assert segment(*words, "--overwrite") == 0
    assert segment.records[0]["status"] == "done"


def test_a_folder_is_replaced_as_a_whole(store: ObjectStore, segment: Segment, clip: Path) -> None:
    words = [store.put("a.mp4", clip), "-o", "s3://bucket/out", "-f", "masks"]
    assert segment(*words) == 0
    assert len(store.keys) == 1 + 4 + 1
    assert segment(*words, "--end", "0.5", "--overwrite") == 0
    assert store.keys == ["a.mp4", "out/a/000000.png", "out/a/000001.png", "out/a/av2tsam.json"]
    store.put("out/a/notes.txt", b"of the user")
    assert segment(*words, "--overwrite") == 2
    assert "s3://bucket/out/a: contains other files (notes.txt)" in segment.error
    assert "out/a/notes.txt" in store.keys


def test_an_interrupted_upload_of_a_folder_is_not_taken_for_a_result(
    store: ObjectStore, segment: Segment, clip: Path
) -> None:
    words = [store.put("a.mp4", clip), "-o", "s3://bucket/out", "-f", "masks", "--end", "0.5"]
    store.put("out/a/000000.png", b"of an earlier upload")
    store.put("out/a/000007.png", b"of an earlier upload")
    store.put("out/a/av2tsam.incomplete", b"")
    assert segment(*words) == 2
    assert "s3://bucket/out/a: already exists" in segment.error
    assert segment(*words, "--skip-existing") == 0
    assert segment.records[0]["status"] == "done"
    assert store.keys == ["a.mp4", "out/a/000000.png", "out/a/000001.png", "out/a/av2tsam.json"]


def test_many_inputs_are_copied_one_after_the_other(
    store: ObjectStore, segment: Segment, clip: Path
) -> None:
    names = ["a", "b", "c"]
    for name in names:
        store.put(f"clips/{name}.mp4", clip)
    store.put("clips/broken.mp4", b"not a video")
    words = ["s3://bucket/clips/", "s3://bucket/none.mp4", "-o", "s3://bucket/out", "-f", "video"]
    assert segment(*words, "--dry-run") == 1
    assert len(store.keys) == 4
    assert segment(*words, "--fps", "1") == 1
    failed = {
        str(each["input"]): each["exit_code"] for each in segment.records if each["exit_code"]
    }
    assert failed == {"s3://bucket/clips/broken.mp4": 3, "s3://bucket/none.mp4": 2}
    assert "s3://bucket/clips/broken.mp4: not a readable media file" in segment.error
    assert [key for key in store.keys if key.startswith("out/")] == [f"out/{n}.mp4" for n in names]


def test_the_end_of_an_input_does_not_disturb_the_copying_of_the_next_one(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("out/next/av2tsam.incomplete", b"")
    staging = Staging(tmp_path)
    done, upcoming = (
        staging.local_path(NetworkPath.of(f"s3://bucket/out/{name}")) for name in ("done", "next")
    )
    done.mkdir(parents=True)
    staging.mirror(upcoming)
    staging.discard(done)
    assert list(upcoming.iterdir()) == []  # incomplete, and not missing

    # The command ends while another thread is about to copy.
    url, look_up = store.put("a.mp4", b"video"), stores.look_up
    monkeypatch.setattr(stores, "look_up", lambda url: (staging.close(), look_up(url))[1])
    with pytest.raises(Av2tsamError, match="not copied, because the command has ended"):
        staging.fetch(input_path(url))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_between_two_inputs(
    store: ObjectStore, segment: Segment, clip: Path
) -> None:
    url = store.put("a.mp4", clip)
    options = SegmentOptions(format="video", fps=1)
    model = ModelOptions(str(segment.model), "cpu")
    job = SegmentJob(NetworkPath.of("s3://bucket/out"), options, model, staging=segment.staging)
    with closing(JobRunner(job, note=lambda _: None)) as runner:
        outcome = run_task(runner, Task(Input(input_path(url), Path("a"))))
        assert [str(path) for path in outcome.outputs] == ["s3://bucket/out/a.mp4"]
        assert list(segment.staging.iterdir()) == []
        assert run_task(runner, Task(Input(input_path(url), Path("a")))).status == "failed"
        assert list(segment.staging.iterdir()) == []
    copy = pickle.loads(pickle.dumps(outcome.outputs))  # noqa: S301 - our own
    assert copy == outcome.outputs


def test_a_connection_that_breaks_once_is_repaired(
    store: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    content = os.urandom(1 << 18)
    url = store.put("a.bin", content)
    proxy.most_down = 1 << 17
    known = look_up(url)

    def go_on() -> bool:
        if proxy.cuts:
            proxy.most_down = None
        return True

    download(url, tmp_path / "a", size=known.size, go_on=go_on)
    assert proxy.cuts
    assert (tmp_path / "a").read_bytes() == content


def test_a_broken_connection_is_an_error(
    store: ObjectStore, proxy: Proxy, segment: Segment, clip: Path
) -> None:
    url = store.put("a.mp4", clip)
    proxy.most_down = 2000
    assert segment(url, "-o", "s3://bucket/out.mp4") == 1
    (line,) = segment.error.splitlines()
    assert f"{url}: the connection failed (" in line
    assert "check the network and run again" in line
    proxy.close()
    assert segment(url, "-o", "s3://bucket/out.mp4") == 1
    assert "the connection failed" in segment.error
    assert store.keys == ["a.mp4"]


def test_an_upload_in_parts_is_complete_or_aborted(
    store: ObjectStore, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "LARGEST_PUT", 5 << 20)
    large, url = tmp_path / "large", "s3://bucket/large.mp4"
    large.write_bytes(os.urandom(6 << 20))
    proxy.most_up = 3 << 20
    with pytest.raises(Av2tsamError, match=f"{url}: the connection failed"):
        upload_file(large, url)
    assert (store.keys, store.uploads) == ([], [])
    proxy.most_up = None
    upload_file(large, url)
    assert (store.get("large.mp4"), store.uploads) == (large.read_bytes(), [])


def test_a_failed_upload_leaves_a_folder_without_record(
    store: ObjectStore, proxy: Proxy, tmp_path: Path
) -> None:
    for name in ("a.png", "av2tsam.json"):
        (tmp_path / name).write_bytes(b"small")
    upload_folder(tmp_path, "s3://bucket/out", last="av2tsam.json")
    (tmp_path / "a.png").write_bytes(os.urandom(1 << 17))
    proxy.most_up = 1 << 16
    with pytest.raises(Av2tsamError, match=r"s3://bucket/out/a\.png: the connection failed"):
        upload_folder(tmp_path, "s3://bucket/out", last="av2tsam.json")
    assert store.keys == ["out/a.png", "out/av2tsam.incomplete"]
    proxy.most_up = None
    upload_folder(tmp_path, "s3://bucket/out", last="av2tsam.json")
    assert store.keys == ["out/a.png", "out/av2tsam.json"]


def test_a_rejected_key(
    store: ObjectStore, segment: Segment, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store.put("a.mp4", clip)
    store.check_keys(after=0)
    try:
        for word, out, named in (
            (url, "out.mp4", url),
            ("s3://bucket/", "out.mp4", "s3://bucket/"),
            (str(clip), "s3://bucket/out/a.mp4", "s3://bucket/out"),
        ):
            assert segment(word, "-o", out) == 1
            assert [each["input"] for each in segment.records] == [word]
            (line,) = segment.error.splitlines()
            assert f"{named}: access denied (" in line
            assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in line
    finally:
        store.check_keys(after=None)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(segment.staging))  # without keys
    S3FileSystem.clear_instance_cache()
    assert segment(url, "-o", "out.mp4") == 1
    assert f"{url}: access denied (Unable to locate credentials)" in segment.error


class Azure(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store whose package says a lot, and repeats requests itself."""

    log = logging.getLogger("azure.identity")
    requests = 0
    status = 403
    says = "Server failed to authenticate.\nContent: <?xml version='1.0'?>\n<Error>"

    def info(self, *_: Any, **__: Any) -> dict[str, Any]:
        Azure.requests += 1
        self.log.warning("tried everything")
        error = OSError(self.says)
        error.status = self.status  # type: ignore[attr-defined]
        raise error


def test_packages_that_say_more_and_repeat_requests(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_registry, "az", Azure)
    url = "az://bucket/a.mp4"
    assert segment(url, "-o", "out.mp4") == 1
    (line,) = segment.error.splitlines()
    assert f"{url}: access denied (Server failed to authenticate.); set AZURE_" in line
    assert segment(url, "-o", "out.mp4", "--verbose") == 1
    assert "av2tsam: azure.identity: tried everything" in segment.error.splitlines()
    monkeypatch.setattr(Azure, "status", 503)
    monkeypatch.setattr(Azure, "says", "busy " * 1000)
    monkeypatch.setattr(Azure, "requests", 0)
    assert segment(url, "-o", "out.mp4") == 1
    (line,) = segment.error.splitlines()
    assert f"{url}: the connection failed (busy busy" in line
    assert len(line) < 400
    assert Azure.requests == 1


def test_a_certificate_that_is_not_trusted(
    store: ObjectStore, segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "localhost.pem"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", place := f"https://127.0.0.1:{server.server_port}")
    S3FileSystem.clear_instance_cache()
    for url, name in ((f"{place}/a.mp4", "SSL_CERT_FILE"), ("s3://bucket/a.mp4", "AWS_CA_BUNDLE")):
        assert segment(url, "-o", "out.mp4") == 1
        (line,) = segment.error.splitlines()
        assert f"{url}: the certificate of the server is not trusted (" in line
        assert line.endswith(f"; set {name} to a file with the certificate of its authority")
    server.shutdown()
    server.server_close()


def self_signed(path: Path) -> Path:
    """Write a key and a certificate of nobody."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(pem, *plain) + certificate.public_bytes(pem))
    return path


def test_missing_buckets_and_files(store: ObjectStore, segment: Segment, clip: Path) -> None:
    for url in ("s3://nowhere/a.mp4", "s3://nowhere/", "s3://bucket/none.mp4"):
        assert segment(url, "-o", "out.mp4") == 2
        assert f"{url}: no such file" in segment.error
    words = [str(clip), store.put("a.mp4", clip), "-f", "masks"]
    assert segment(*words, "-o", "s3://nowhere/out") == 2
    (line,) = segment.error.splitlines()  # before any work
    assert line.endswith("s3://nowhere/out: no such bucket; create it, or check the URL")
    assert [each["status"] for each in segment.records] == ["failed", "failed"]


def test_a_missing_package(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    assert segment("gs://bucket/a.mp4", "-o", "out.mp4") == 2
    assert "gs://bucket/a.mp4: needs gcsfs; install it with: pip install gcsfs" in segment.error


def test_web_servers_can_only_be_read(segment: Segment) -> None:
    for out in ("https://example.org/out.mp4", "hf://datasets/a/b/out.mp4"):
        assert segment("a.mp4", "-o", out) == 2
        assert f"{out}: h" in segment.error
        with pytest.raises(UsageError, match="can only be read"):
            check_url(out, writing=True)
