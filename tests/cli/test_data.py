import csv
import json
import shutil
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.synth.dataset import write_dataset


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 with 2, 1 and 1 videos, MS3 with 1, 0 and 1."""
    out = tmp_path_factory.mktemp("intact")
    write_dataset(out, subset="s4", videos=4, seed=3, split_sizes=(2, 1, 1), workers=1)
    write_dataset(out, subset="ms3", videos=2, seed=3, split_sizes=(1, 0, 1), workers=1)
    return out


@pytest.fixture
def copied(intact: Path, tmp_path: Path) -> Path:
    """A copy that tests may damage."""
    return Path(shutil.copytree(intact, tmp_path / "avsbench_data"))


def test_synth_generates_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "synth", str(tmp_path / "set"), "--subset", "ms3", "--split-sizes", "1,0,1"]
    assert main([*words, "--seed", "7", "--workers", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert (record["videos"], record["subset"], record["seed"]) == (2, "ms3", 7)
    assert len(err.splitlines()) == 1
    with next((tmp_path / "set").rglob("*.csv")).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert len(list((tmp_path / "set").rglob("*.mp4"))) == 2
    assert main([*words, "--seed", "7", "--workers", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_synth_off_grid_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "synth", str(tmp_path / "set"), "--off-grid", "--videos", "1"]
    assert main([*words, "--workers", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["off_grid"] is True
    assert len(list((tmp_path / "set").rglob("frame_masks/*/*.png"))) == 125
    assert main(["data", "check", str(tmp_path / "set")]) == 0
    assert "all files are intact" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--split-sizes", "1,2"], "three whole numbers"),
        (["--videos", "5", "--split-sizes", "1,1,1"], "add up"),
        (["--videos", "0"], "--videos"),
        (["--subset", "s5"], "unknown subset 's5'"),
    ],
)
def test_invalid_sizes_are_a_usage_error(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "synth", str(tmp_path / "set"), *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_check_counts_videos_by_split_and_category(
    intact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(intact)]) == 0
    out, err = capsys.readouterr()
    s4, ms3 = out.strip().split("\n\n")
    rows = {line.rsplit(maxsplit=3)[0]: line.split()[-3:] for line in s4.splitlines()[:-1]}
    assert rows.pop("s4") == ["train", "val", "test"]
    assert rows.pop("labelled frames") == ["2", "5", "5"]
    videos = rows.pop("videos")
    assert videos == ["2", "1", "1"]
    with next(intact.glob("*/s4_meta_data.csv")).open(newline="") as file:
        assert set(rows) == {row["category"] for row in csv.DictReader(file)}
    assert [sum(map(int, column)) for column in zip(*rows.values(), strict=True)] == [2, 1, 1]
    assert ms3.splitlines()[-1] == "all files are intact"
    assert err == ""


def test_check_prints_one_object_per_subset(
    intact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(intact), "--json"]) == 0
    s4, ms3 = map(json.loads, capsys.readouterr().out.splitlines())
    assert (s4["subset"], s4["videos"], s4["problems"]) == ("s4", 4, [])
    assert s4["splits"]["val"]["labelled_frames"] == 5
    assert sum(s4["splits"]["train"]["categories"].values()) == 2
    assert ms3["splits"]["val"] == {"videos": 0, "labelled_frames": 0, "categories": {}}
    assert main(["data", "check", str(intact), "--subset", "ms3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ms3


def test_check_lists_every_damaged_file(
    copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVSBENCH_ROOT", str(copied))
    data = copied / "Single-source" / "s4_data"
    mask = min(data.glob("gt_masks/test/*/*/*_3.png"))
    mask.write_bytes(mask.read_bytes()[:-1])
    wav = min(data.glob("audio_wav/train/*/*.wav"))
    wav.unlink()
    assert main(["data", "check", str(copied), "--subset", "s4", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["sound_from_raw_videos"] == 1
    shutil.rmtree(data / "raw_videos")
    assert main(["data", "check", "avsbench", "--json"]) == 3
    out, err = capsys.readouterr()
    s4, ms3 = map(json.loads, out.splitlines())
    assert s4["damaged_videos"] == 2
    assert {problem["file"] for problem in s4["problems"]} == {str(mask), str(wav)}
    assert {problem["split"] for problem in s4["problems"]} == {"train", "test"}
    assert ms3["problems"] == []
    assert sorted(err.splitlines()) == sorted(
        f"av2tsam: error: {problem['problem']}" for problem in s4["problems"]
    )
    assert f"{mask}: truncated;" in err
    assert f"{wav}: missing;" in err
    assert main(["data", "check", "avsbench"]) == 3
    assert "2 missing or corrupted files in 2 videos" in capsys.readouterr().out


def test_check_lists_videos_that_appear_twice(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "Single-source" / "s4_meta_data.csv"
    row = path.read_text().splitlines()[1]
    path.write_text(f"{path.read_text()}{row}\n")
    assert main(["data", "check", str(copied), "--subset", "s4", "--json"]) == 3
    out, err = capsys.readouterr()
    (problem,) = json.loads(out)["problems"]
    assert problem["file"] == str(path)
    assert f"{path}: lists {row.split(',')[0]} 2 times in the split train; " in err
    assert len(err.splitlines()) == 1


def test_check_rejects_a_csv_with_only_a_header(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "Single-source" / "s4_meta_data.csv"
    path.write_text(path.read_text().splitlines()[0])
    assert main(["data", "check", str(copied), "--subset", "s4"]) == 3
    assert f"{path}: lists no videos" in capsys.readouterr().err


def test_check_reports_an_empty_split_and_raw_videos_which_strict_rejects(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(copied), "--subset", "ms3"]) == 0
    assert "no videos in the split val\n" in capsys.readouterr().out
    words = ["data", "check", str(copied), "--strict", "--subset"]
    assert main([*words, "ms3", "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["empty_splits"] == ["val"]
    assert "lists no videos for the split val; complete it, or omit --strict" in err
    assert main([*words, "s4", "--quiet"]) == 0
    assert "all files are intact" in capsys.readouterr().out
    shutil.rmtree(copied / "Single-source" / "s4_data" / "audio_wav")
    assert main([*words, "s4"]) == 3
    out, err = capsys.readouterr()
    assert "4 videos without a WAV file (such as s4_train_000000): raw_videos is used\n" in out
    assert "(such as s4_train_000000); extract the sound, or omit --strict" in err


def test_check_prints_the_first_of_many_damaged_files(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copied / "Single-source" / "s4_data" / "visual_frames")
    shutil.rmtree(copied / "Single-source" / "s4_data" / "raw_videos")
    shutil.rmtree(copied / "Single-source" / "s4_data" / "gt_masks")
    assert main(["data", "check", str(copied), "--subset", "s4"]) == 3
    *errors, more = capsys.readouterr().err.splitlines()
    assert len(errors) == 20
    assert more == "av2tsam: s4: and 12 more files; use --json to list all of them"


def test_check_continues_with_the_other_subset_if_a_csv_is_invalid(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "Single-source" / "s4_meta_data.csv").write_text("name,split\na,train\n")
    assert main(["data", "check", str(copied), "--json"]) == 3
    out, err = capsys.readouterr()
    s4, ms3 = map(json.loads, out.splitlines())
    assert "has no column category" in s4["error"]
    assert ms3["videos"] == 2
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["nowhere"], 2, "nowhere: folder not found"),
        (["avsbench"], 2, "./avsbench_data: folder not found"),
        (["avsbench", "--data-root", "gone"], 2, "gone: folder not found"),
        (["."], 3, "contains no AVSBench subset"),
        ([".", "--subset", "s4"], 3, "no Single-source/s4_meta_data.csv found"),
        ([".", "--data-root", "."], 2, "--data-root can be used only with PATH avsbench"),
        ([".", "--subset", "s5"], 2, "unknown subset 's5'"),
        ([], 2, "PATH"),
    ],
)
def test_check_reports_invalid_arguments(
    words: list[str],
    code: int,
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AVSBENCH_ROOT", raising=False)
    assert main(["data", "check", *words]) == code
    assert complaint in capsys.readouterr().err
