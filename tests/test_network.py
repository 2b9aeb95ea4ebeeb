"""Paths that have URLs: opened as a copy, and printed as the URL."""

import copy
import os
import pickle
from pathlib import Path

import pytest

from av2tsam_cli.network import (
    NetworkPath,
    input_path,
    is_remote,
    is_stored,
    relative_path,
    url_of,
    without_copy,
)

URL = "s3://bucket/clips/a b.mp4"


def test_a_copy_is_opened_as_a_file_and_printed_as_the_url(tmp_path: Path) -> None:
    path = NetworkPath.of(URL).at(tmp_path / "copy.mp4", "version 1")
    path.write_bytes(b"video")
    assert (tmp_path / "copy.mp4").read_bytes() == path.read_bytes() == b"video"
    assert str(path) == f"{path}" == URL
    assert os.fspath(path.absolute()) == str(tmp_path / "copy.mp4")
    assert (path.exists(), path.is_file(), path.stat().st_size) == (True, True, 5)
    assert not is_remote(path)
    assert str(without_copy(path)) == URL
    assert is_stored(without_copy(path))
    assert path.parent == tmp_path


def test_what_is_in_a_folder_has_urls(tmp_path: Path) -> None:
    folder = NetworkPath.of("s3://bucket/out/").at(tmp_path / "out")
    for name in ("a.png", "day/b.png"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert str(file) == f"s3://bucket/out/{name}"
    assert {path.name for path in folder.iterdir()} == {"a.png", "day"}
    assert {path.name for path in folder.rglob("*.png")} == {"a.png", "b.png"}
    assert [path.name for path in folder.glob("*.png")] == ["a.png"]
    assert [str(path) for path in folder.iterdir() if path.is_file()] == [
        str(tmp_path / "out/a.png")
    ]
    assert str(folder / Path()) == "s3://bucket/out/"


def test_paths_with_the_same_url_are_equal(tmp_path: Path) -> None:
    path, other = NetworkPath.of(URL), NetworkPath.of(URL).at(tmp_path / "copy.mp4", "version 1")
    assert path == other
    assert hash(path) == hash(other)
    assert path != NetworkPath.of("s3://bucket/b.mp4")
    assert other != tmp_path / "copy.mp4"
    for again in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):  # noqa: S301 - our own
        assert (again, os.fspath(again), again.version) == (other, os.fspath(other), "version 1")


def test_the_name_of_a_url_has_no_query() -> None:
    path = input_path("https://example.org/day%201/a.mp4?token=1/2")
    assert (path.name, path.stem, path.suffix, path.parent.name) == ("a.mp4", "a", ".mp4", "day 1")
    assert url_of(path) == "https://example.org/day%201/a.mp4?token=1/2"
    assert input_path("https://example.org").name == "video"
    assert NetworkPath.of("s3://bucket/what?.mp4").name == "what?.mp4"


@pytest.mark.parametrize(
    ("path", "beside", "place"),
    [
        ("s3://bucket/out/a.mp4", "s3://bucket/pages/day/a.html", "../../out/a.mp4"),
        ("s3://bucket/a.mp4", "s3://other/a.html", "s3://bucket/a.mp4"),
        ("s3://bucket/a.mp4", "/pages/a.html", "s3://bucket/a.mp4"),
        ("/out/a.mp4", "s3://bucket/a.html", "/out/a.mp4"),
        ("/out/a.mp4", "/out/pages/a.html", "../a.mp4"),
    ],
)
def test_places_as_seen_from_other_files(path: str, beside: str, place: str) -> None:
    paths = [NetworkPath.of(each) if "://" in each else Path(each) for each in (path, beside)]
    assert relative_path(paths[0], paths[1]) == place
