"""What is found out before any work, and which writer a format gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.outputs.writers import Format, check_target

from .conftest import Job, two_sources

MakeClip = Callable[..., Path]
SOURCE = Path("somewhere/duet.mp4")


def refusal(target: Path, kind: Format = "video", source: Path = SOURCE) -> str:
    with pytest.raises(UsageError) as refused:
        check_target(target, kind, source=source)
    line = str(refused.value)
    assert line.startswith(str(target))
    assert "\n" not in line
    assert refused.value.exit_code == 2
    return line


@pytest.mark.parametrize("name", ["a.mp4", "a.MOV", "a.mkv", "a.webm", "où 夏.mp4"])
def test_the_check_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    check_target(tmp_path / name, "video", source=SOURCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a", "mp4", "a.mp4.part"])
def test_suffix_of_another_kind_of_file(tmp_path: Path, name: str) -> None:
    assert ".mp4, .mov, .mkv, .webm" in refusal(tmp_path / name)


def test_existing_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert "`overwrite`" in refusal(tmp_path / "a.mp4")
    check_target(tmp_path / "a.mp4", "video", source=SOURCE, overwrite=True)


def test_the_input_itself(make_clip: MakeClip) -> None:
    clip = make_clip()
    with pytest.raises(UsageError, match="the input itself"):
        check_target(clip, "video", source=clip, overwrite=True)


def test_folder_in_place_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    assert "is a folder" in refusal(tmp_path / "a.mp4")


def test_a_missing_folder_is_not_created_by_the_check(tmp_path: Path) -> None:
    check_target(tmp_path / "new" / "a.mp4", "video", source=SOURCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place nobody can write to")
@pytest.mark.parametrize("kind", ["video", "masks"])
def test_unwritable_folder(kind: Format) -> None:
    line = refusal(Path("/proc/a.mp4") if kind == "video" else Path("/proc/a"), kind)
    assert "cannot be written" in line


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    for path in (tmp_path / "out", tmp_path / "out" / "duet"):
        with pytest.raises(UsageError, match=r"out: is a file"):
            check_target(path, "masks", source=SOURCE)


@pytest.mark.parametrize("name", ["000000.png", "dog"])
def test_links_are_no_part_of_an_earlier_result(tmp_path: Path, name: str) -> None:
    outside, result = tmp_path / "outside", tmp_path / "duet"
    outside.mkdir()
    result.mkdir()
    (outside / "000000.png").touch()
    (result / "names.json").write_text('{"names": [{"folder": "dog"}, {"folder": "../outside"}]}')
    (result / name).symlink_to(outside if name == "dog" else outside / "000000.png")
    with pytest.raises(UsageError, match=rf"other files \({name}\)"):
        check_target(tmp_path / "duet", "named-masks", source=SOURCE, overwrite=True)


def test_existing_pngs(tmp_path: Path) -> None:
    (tmp_path / "duet").mkdir()
    (tmp_path / "duet" / "000000.png").touch()
    assert "`overwrite`" in refusal(tmp_path / "duet", "masks")
    check_target(tmp_path / "duet", "masks", source=SOURCE, overwrite=True)


def test_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "duet").mkdir()
    (tmp_path / "duet" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"other files \(thesis.tex\)"):
        check_target(tmp_path / "duet", "masks", source=SOURCE, overwrite=True)


def earlier_result(folder: Path, kind: Format, make_clip: MakeClip, job: Job) -> Path:
    job(make_clip("duet.mp4", seconds=0.2), folder, kind, named=two_sources)
    return folder / "duet"


@pytest.mark.parametrize("kind", ["named-masks", "indexed-masks"])
def test_an_earlier_result_with_names_is_replaced(
    make_clip: MakeClip, job: Job, tmp_path: Path, kind: Format
) -> None:
    folder = earlier_result(tmp_path / "out", kind, make_clip, job)
    assert "`overwrite`" in refusal(tmp_path / "out" / "duet", kind)
    check_target(tmp_path / "out" / "duet", kind, source=SOURCE, overwrite=True)
    job(make_clip("duet.mp4", seconds=0.1), tmp_path / "out", "masks", overwrite=True)
    assert {file.name for file in folder.iterdir()} == {"000000.png", "000001.png"}


@pytest.mark.parametrize("name", ["notes.txt", "dog/notes.txt", "horse"])
def test_a_result_with_other_files_is_never_replaced(
    make_clip: MakeClip, job: Job, tmp_path: Path, name: str
) -> None:
    folder = earlier_result(tmp_path / "out", "named-masks", make_clip, job)
    if name == "horse":
        (folder / name).mkdir()
    else:
        (folder / name).touch()
    with pytest.raises(UsageError, match=rf"other files \({name}\)"):
        check_target(tmp_path / "out" / "duet", "named-masks", source=SOURCE, overwrite=True)


@pytest.mark.parametrize("text", ["[]", "{}", '{"names": ["dog"]}', '{"names": 3}', "no json"])
def test_a_names_json_of_something_else_is_never_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "duet").mkdir()
    (tmp_path / "duet" / "names.json").write_text(text)
    with pytest.raises(UsageError, match=r"other files \(names.json\)"):
        check_target(tmp_path / "duet", "named-masks", source=SOURCE, overwrite=True)
