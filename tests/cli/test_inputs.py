"""Which files a command processes, and how their outputs are named."""

import io
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from av2tsam_cli.cli.batch import check_outputs
from av2tsam_cli.cli.inputs import (
    SOUNDS,
    VIDEOS,
    InputOptions,
    find_inputs,
    name_outputs,
)
from av2tsam_cli.errors import UsageError
from av2tsam_cli.job import Input, check_input

PLAIN = InputOptions()
RECURSIVE = InputOptions(recursive=True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with videos in folders."""
    for name in (
        "takes/b.mp4",
        "takes/a.MOV",
        "takes/notes.txt",
        "takes/.hidden.mp4",
        "takes/day1/a.mp4",
        "takes/day1/cam/a.mkv",
        "takes/.cache/x.mp4",
        "takes/sound.wav",
        "other/a.mp4",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*words: str, options: InputOptions = PLAIN, out: str = "out") -> dict[str, str]:
    """Return the names of outputs by their inputs."""
    inputs = find_inputs(words, options, out=Path(out))
    return {str(each.path): str(each.name) for each in inputs}


@pytest.mark.usefixtures("tree")
def test_a_folder_stands_for_the_videos_directly_in_it() -> None:
    assert found("takes") == {"takes/a.MOV": "a", "takes/b.mp4": "b"}
    sounds = find_inputs(["takes"], InputOptions(), kinds=(VIDEOS, SOUNDS))
    assert [each.path.name for each in sounds] == ["a.MOV", "b.mp4", "sound.wav"]


@pytest.mark.usefixtures("tree")
def test_outputs_mirror_the_folders_below_a_folder() -> None:
    assert found("takes", options=RECURSIVE) == {
        "takes/a.MOV": "a",
        "takes/b.mp4": "b",
        "takes/day1/a.mp4": "day1/a",
        "takes/day1/cam/a.mkv": "day1/cam/a",
    }


@pytest.mark.usefixtures("tree")
def test_results_do_not_become_inputs() -> None:
    assert list(found("takes", options=RECURSIVE, out="takes/day1")) == [
        "takes/a.MOV",
        "takes/b.mp4",
    ]
    assert "takes/day1/a.mp4" not in found("takes/**/*.mp4", out="takes/day1")
    # Outputs in the working directory, or beside the inputs of a pattern, are common.
    assert len(found("takes", out=".")) == 2
    assert len(found("takes/*.mp4", out="takes")) == 1
    with pytest.raises(UsageError, match="takes: a folder without videos, apart from hidden files"):
        check_input(find_inputs(["takes"], RECURSIVE, out=Path("takes"))[0])


@pytest.mark.usefixtures("tree")
def test_outputs_of_a_pattern_mirror_what_is_below_its_fixed_part() -> None:
    assert found("takes/*/*.mp4") == {"takes/day1/a.mp4": "day1/a"}
    assert found("*/a.mp4") == {"other/a.mp4": "other/a"}
    assert found(f"{os.getcwd()}/t*/**/a.mkv") == {  # noqa: PTH109
        f"{os.getcwd()}/takes/day1/cam/a.mkv": "takes/day1/cam/a"  # noqa: PTH109
    }


def test_patterns_are_expanded_in_order_without_duplicates(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "._a.mp4", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.mp4").mkdir()
    assert list(found(str(tmp_path / "*.mp4"), str(tmp_path / "b.mp4"))) == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "b.mp4"),
    ]


def test_a_file_is_preferred_to_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").touch()
    for link in ("a.mp4", "c.mp4"):
        (tmp_path / link).symlink_to("b.mp4")
    assert found(str(tmp_path)) == {str(tmp_path / "b.mp4"): "b"}
    assert found(str(tmp_path / "a.mp4")) == {str(tmp_path / "a.mp4"): "a"}


def test_an_existing_file_is_not_treated_as_a_pattern(tmp_path: Path) -> None:
    for name in ("take[1].mp4", "take1.mp4"):
        (tmp_path / name).touch()
    path = str(tmp_path / "take[1].mp4")
    assert found(path) == {path: "take[1]"}


def test_what_stands_for_no_file_is_kept_for_its_error_message(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for word, complaint in (
        ("/nowhere/*.mp4", "no file matches; check the pattern"),
        (str(tmp_path / "a.mp4"), "file not found; check the path"),
        (str(tmp_path / "empty"), "a folder without videos"),
    ):
        (path,) = found(word)
        assert path == word
        with pytest.raises(UsageError, match=f"{re.escape(word)}: {complaint}"):
            check_input(Input(Path(path), Path()))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "zip://a.mp4::s3://bucket/b.zip",
        "simplecache::s3://bucket/a.mp4",
        "ftp://example.org/a.mp4",
        "github://user:name@/a.mp4",
        "s3://bucket/../a.mp4",
    ],
)
def test_other_urls_are_usage_errors(url: str) -> None:
    with pytest.raises(UsageError, match=f"{re.escape(url)}: "):
        found(url)


def test_urls_of_web_servers() -> None:
    urls = find_inputs(["https://example.org/v/a.mp4?x=1"], InputOptions(), allow_url=True)
    assert [str(each.name) for each in urls] == ["a"]


@pytest.mark.usefixtures("tree")
def test_inputs_are_read_from_a_list(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = f"takes/b.mp4\r\n\ntakes/day1\n./other/a.mp4\n{tree}/takes/day1/cam/a.mkv\n"
    Path("list.txt").write_bytes(b"\xef\xbb\xbf" + names.encode())
    expected = {
        "takes/b.mp4": "takes/b",
        "takes/day1/a.mp4": "takes/a",
        "other/a.mp4": "other/a",
        f"{tree}/takes/day1/cam/a.mkv": "takes/day1/cam/a",
    }
    assert found(options=InputOptions(files_from=Path("list.txt"))) == expected
    stdin = SimpleNamespace(buffer=io.BytesIO(b"new\nline.mp4\0../a.mp4\0\xff.mp4\0"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(found("takes/b.mp4", options=InputOptions(files_from=Path("-"), null=True))) == [
        "takes/b.mp4",
        "new\nline.mp4",
        "../a.mp4",
        os.fsdecode(b"\xff.mp4"),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), (b"\n", "lists no files"), (b"a\0b\0", "set `null`")],
)
def test_an_unusable_list_is_a_usage_error(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        found(options=InputOptions(files_from=tmp_path / "list"))


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{folder}/{stem}_matte", "day1/cam/a_matte"),
        ("{stem}.webm", "a.webm"),
        ("{parent}-{name}", "cam-a.mkv"),
        ("{number:03}/{stem}", "001/a"),
        ("{{{stem}}}", "{a}"),
    ],
)
def test_a_template_names_the_outputs(template: str, name: str) -> None:
    inputs = find_inputs(["takes/day1/cam/a.mkv"], InputOptions())
    inputs = (Input(inputs[0].path, Path("day1/cam/a")),)
    (named,) = name_outputs(inputs, template, Path("out"))
    assert f"{named.name}{named.suffix}" == name
    assert named.suffix == (".webm" if template.endswith(".webm") else "")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{title}", "unknown field {title}; use {stem}, {name}, {folder}, {parent} or {number}"),
        ("{stem.parent}", "unknown field {stem.parent}"),
        ("{stem!r}", "unknown field {stem}"),
        ("{stem:5}", "only {number:05} has a width"),
        ("{stem", "expected '}'"),
        ("/{stem}", "outside `out`"),
        ("../{stem}", "outside `out`"),
        ("{stem}/", "an empty name"),
        ("", "an empty name"),
    ],
)
def test_unusable_templates_are_usage_errors(template: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(complaint)):
        name_outputs([Input(Path("a.mp4"), Path("a"))], template, Path("out"))


def test_a_template_needs_a_folder_of_outputs() -> None:
    with pytest.raises(UsageError, match=r"o\.mp4: `name_template` names outputs in a folder"):
        name_outputs([Input(Path("a.mp4"), Path("a"))], "{stem}", Path("o.mp4"))


def collide(*pairs: tuple[str, str]) -> str:
    """Return why outputs cannot be written."""
    with pytest.raises(UsageError) as refused:
        check_outputs(
            [Path(source) for source, _ in pairs],
            [{"out": Path(output)} for _, output in pairs],
            named={"out": Path("out")},
        )
    return str(refused.value)


def test_outputs_in_each_others_way_are_found_before_any_work() -> None:
    other_names = "give them other names, such as --name-template '{parent}_{stem}'"
    assert collide(("a/x.mp4", "out/x"), ("b/X.mp4", "out/X")) == (
        f"a/x.mp4 and b/X.mp4: both would be written to out/X; {other_names}"
    )
    assert collide(("a.mp4", "out"), ("b.mp4", "out")) == (
        "out: cannot hold the output of 2 inputs; set `out` to a folder, and `format`"
    )
    nested = ("t/clip/x.mp4", "out/clip/x"), ("t/clip.mp4", "out/clip")
    for pairs in (nested, nested[::-1]):
        assert "its output would be in" in collide(*pairs)
    assert collide(("a.mp4", "b.mp4"), ("b.mp4", "c.mp4")) == (
        f"b.mp4: would be replaced by the output of a.mp4; {other_names}"
    )
