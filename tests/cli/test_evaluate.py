"""The command `av2tsam evaluate`."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.synth.dataset import write_dataset

KEYS = {
    "miou", "f_score", "intervals", "confidence", "protocol", "subset", "split", "audio", "videos",
    "frames", "silent_frames", "skipped", "categories", "model", "device", "precision",
}  # fmt: skip
DAVIS_KEYS = {"j", "boundary_f", "j_and_f"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    write_dataset(out, subset="ms3", videos=2, seed=5, split_sizes=(0, 0, 2), workers=1)
    write_dataset(out, subset="s4", videos=2, seed=4, split_sizes=(0, 0, 2), workers=1)
    return out


class Evaluate:
    """Runs `av2tsam evaluate` with the tiny model and keeps its output."""

    def __init__(self, model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        cache = data.parent / f"{data.name}-cache"
        self.words = ["--model", str(model), "--device", "cpu", "--cache", str(cache)]
        self.data = data
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object, data: Path | None = None) -> int:
        where = ["--data", str(data or self.data)]
        code = main(["evaluate", *where, *map(str, words), *self.words])
        self.out, self.err = self.capsys.readouterr()
        return code

    @property
    def record(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        record: dict[str, Any] = json.loads(line)
        return record


@pytest.fixture
def evaluate(tiny_model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    return Evaluate(tiny_model, data, capsys)


def test_json_is_one_object(evaluate: Evaluate) -> None:
    assert evaluate("--json") == 0
    assert set(evaluate.record) == KEYS | DAVIS_KEYS
    assert evaluate.record["subset"] == "s4"
    assert (evaluate.record["videos"], evaluate.record["frames"]) == (2, 10)
    assert 0.0 < evaluate.record["miou"] < 1.0
    assert evaluate("--subset", "ms3", "--audio", "offscreen", "--seed", "3", "--json") == 0
    assert set(evaluate.record) >= KEYS | {"fpr", "positive", "negative"}
    assert set(evaluate.record["positive"]) == {"miou", "f_score", "intervals"} | DAVIS_KEYS
    assert evaluate.record["audio"] == "offscreen"


def test_scores_are_printed_as_a_table(evaluate: Evaluate) -> None:
    assert evaluate("--audio", "silence") == 0
    assert "s4 test, 2 videos" in evaluate.out
    lines = [line.split() for line in evaluate.out.splitlines() if line.strip()]
    assert lines[1] == ["combined", "positive", "negative", "ungated"]
    assert [line[0] for line in lines[2:7]] == ["miou", "f_score", "j", "boundary_f", "j_and_f"]
    assert "95% bootstrap intervals over videos" in evaluate.out
    assert evaluate("--quiet") == 0
    assert (evaluate.out, evaluate.err) == ("", "")


def test_the_csv_agrees_with_the_means(evaluate: Evaluate, tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.csv"
    assert evaluate("--csv", path, "--json") == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == ["s4_test_000000", "s4_test_000001"]
    for name in ("miou", "f_score", "j", "boundary_f"):
        scores = [float(row[name]) for row in rows]
        assert sum(scores) / 2 == evaluate.record[name]
        # Of two videos, one is drawn twice in half of the samples.
        assert evaluate.record["intervals"][name] == pytest.approx(sorted(scores))


def test_the_contact_sheet_has_a_row_per_video(evaluate: Evaluate, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert evaluate("--contact-sheet", path) == 0
    assert cv2.imread(str(path)).shape == (2 * (22 + 160), 5 * 160, 3)


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_saved_masks_score_one_as_true_masks(
    evaluate: Evaluate, tmp_path: Path, subset: str
) -> None:
    assert evaluate("--subset", subset, "--save-masks", tmp_path / "masks") == 0
    copy = Path(shutil.copytree(evaluate.data, tmp_path / "copy"))
    (true_masks,) = copy.glob(f"*/{subset}_data/gt_masks")
    shutil.rmtree(true_masks)
    shutil.copytree(tmp_path / "masks", true_masks)
    assert evaluate("--subset", subset, "--json", data=copy) == 0
    assert evaluate.record["miou"] == pytest.approx(1.0, abs=1e-6)


def test_existing_outputs_are_reported_before_the_work(evaluate: Evaluate, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("unrelated")
    assert evaluate("--csv", path) == 2
    assert "set --overwrite to replace it" in evaluate.err
    assert evaluate("--save-masks", tmp_path) == 2
    assert "set --save-masks to a new folder" in evaluate.err
    assert path.read_text() == "unrelated"
    assert evaluate("--csv", path, "--overwrite") == 0
    assert path.read_text().startswith("video,")


def test_a_damaged_file_exits_with_3_and_leaves_no_output(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(evaluate.data, tmp_path / "copy"))
    frame = next(copy.rglob("visual_frames/**/s4_test_000001_5.png"))
    frame.write_bytes(frame.read_bytes()[:500])
    out = ("--csv", tmp_path / "scores.csv", "--save-masks", tmp_path / "masks")
    assert evaluate(*out, data=copy) == 3
    assert str(frame) in evaluate.err
    assert len(evaluate.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert evaluate(*out, "--skip-bad", "--json", data=copy) == 0
    assert evaluate.record["skipped"] == ["s4_test_000001"]
    assert "skipped s4_test_000001" in evaluate.err


def test_a_missing_folder_exits_with_2_and_missing_data_in_it_with_3(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    assert evaluate(data=tmp_path / "nowhere") == 2
    assert evaluate(data=tmp_path) == 3
    assert evaluate("--subset", "avss") == 3
