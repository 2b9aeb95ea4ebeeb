import csv
import json
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main


def test_a_data_set_is_made_from_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--split-sizes", "1,2"], "three whole numbers"),
        (["--videos", "5", "--split-sizes", "1,1,1"], "add up"),
        (["--videos", "0"], "--videos"),
        (["--subset", "s5"], "--subset"),
    ],
)
def test_sizes_that_make_no_sense_are_a_usage_error(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "synth", str(tmp_path / "set"), *words]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
