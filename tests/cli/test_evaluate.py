"""The command `av2tsam evaluate`."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from av2tsam_cli.__main__ import main
from av2tsam_cli.synth.dataset import write_dataset

KEYS = {
    "timing",
    "miou", "f_score", "intervals", "confidence", "protocol", "subset", "split", "audio", "videos",
    "frames", "silent_frames", "skipped", "categories", "hear", "model", "device", "precision",
    "frames_from_raw_videos", "sound_from_raw_videos", "padded_sounds", "repeated_videos",
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
    scores = evaluate.out
    assert evaluate("--audio", "silence", "--quiet") == 0
    assert (evaluate.out, evaluate.err) == (scores, "")


def test_the_csv_agrees_with_the_means(evaluate: Evaluate, tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
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


def test_the_video_shows_frames_predictions_and_true_masks_with_the_sound(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    path = tmp_path / "results.mp4"
    assert evaluate("--video", path, "--save-masks", tmp_path / "masks") == 0
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        (sound,) = container.streams.audio
        duration_s = float(sound.duration * sound.time_base)
    # Two videos of five seconds; three square frames with gaps, under the scores, over captions.
    assert (len(pictures), pictures[0].shape) == (2 * 5 * 4, (320 + 2 * 28, 3 * 320 + 2 * 8, 3))
    assert duration_s == pytest.approx(10.0, abs=0.1)
    frame, prediction = pictures[0][28:-28, :320].astype(int), pictures[0][28:-28, 328:648]
    (name,) = {
        name
        for name in ("s4_test_000000", "s4_test_000001")
        if np.abs(frame - first_frame(evaluate.data, name)).mean() < 10
    }
    (path,) = (tmp_path / "masks").rglob(f"{name}_1.png")
    mask = cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (320, 320)) > 127
    redder = (prediction[..., 0].astype(int) - prediction[..., 1])[mask].mean()
    assert redder > (frame[..., 0] - frame[..., 1])[mask].mean() + 20  # the highlight is magenta
    assert evaluate("--video", tmp_path / "results.avi") == 2
    assert "not a .mp4 file" in evaluate.err


def first_frame(data: Path, name: str) -> npt.NDArray[np.int64]:
    """Return the first frame of a video at the height of the result video."""
    (path,) = data.rglob(f"visual_frames/**/{name}_1.png")
    rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(rgb, (320, 320)), np.int64)


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


def score_predictions(evaluate: Evaluate, folder: Path, *words: object) -> int:
    """Run `av2tsam evaluate --predictions`, without a model."""
    model, evaluate.words = evaluate.words, []
    try:
        return evaluate("--predictions", folder, *words)
    finally:
        evaluate.words = model


@pytest.mark.parametrize("subset", ["s4", "ms3"])
def test_predictions_score_as_the_model_that_made_them(
    evaluate: Evaluate, tmp_path: Path, subset: str
) -> None:
    masks, logits = tmp_path / "masks", tmp_path / "logits"
    out = ("--save-masks", masks, "--save-logits", logits)
    assert evaluate("--subset", subset, *out, "--json") == 0
    original = evaluate.record
    assert score_predictions(evaluate, masks, "--subset", subset, "--json") == 0
    assert "model" not in evaluate.record
    assert (evaluate.record["videos"], evaluate.record["resized_videos"]) == (2, 0)
    for name in ("miou", "j", "boundary_f"):
        assert evaluate.record[name] == pytest.approx(original[name], abs=1e-6)
    assert score_predictions(evaluate, logits, "--subset", subset, "--json") == 0
    for name in ("miou", "f_score", "j", "boundary_f"):  # float16 moves logits beside a threshold
        assert evaluate.record[name] == pytest.approx(original[name], abs=1e-3)


def test_logits_can_be_scored_by_the_reference_protocol_and_masks_cannot(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    masks, logits = tmp_path / "masks", tmp_path / "logits"
    protocol = ("--protocol", "reference", "--json")
    assert evaluate(*protocol, "--save-masks", masks, "--save-logits", logits) == 0
    original = evaluate.record
    assert score_predictions(evaluate, logits, *protocol) == 0
    assert evaluate.record["f_score"] == pytest.approx(original["f_score"], abs=1e-3)
    assert score_predictions(evaluate, masks, *protocol) == 2
    assert "has no logits of s4_test_000000, which --protocol reference needs" in evaluate.err


def test_predictions_need_no_network_code(evaluate: Evaluate, tmp_path: Path) -> None:
    assert evaluate("--save-masks", tmp_path / "masks") == 0
    words = ["--predictions", str(tmp_path / "masks"), "--data", str(evaluate.data), "--quiet"]
    code = f"""
import sys
from av2tsam_cli.__main__ import main
assert main({["evaluate", *words]!r}) == 0
assert not {{"open_clip", "laion_clap", "segment_anything", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)  # noqa: S603 - our own


def test_predictions_of_another_size_are_resized_with_a_note(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(next(evaluate.data.glob("*/s4_data/gt_masks")), masks)
    for path in masks.glob("test/*/s4_test_000001/*.png"):
        Image.open(path).convert("L").resize((448, 336)).save(path)
    assert score_predictions(evaluate, masks, "--csv", tmp_path / "scores.csv") == 0
    assert "the masks of 1 of 2 videos were resized" in evaluate.err
    assert f"masks in {masks}, original audio" in evaluate.out
    with (tmp_path / "scores.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["miou"]) == pytest.approx(1.0)
    assert float(second["miou"]) == pytest.approx(1.0, abs=0.05)


def test_a_missing_prediction_exits_with_3_or_is_skipped(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    assert evaluate("--save-masks", masks) == 0
    missing = next(masks.rglob("s4_test_000001_4.png"))
    missing.unlink()
    assert score_predictions(evaluate, masks) == 3
    (line,) = evaluate.err.splitlines()
    assert f"{missing}: missing; save a mask of every labelled frame" in line
    assert score_predictions(evaluate, masks, "--skip-bad", "--json") == 0
    assert evaluate.record["skipped"] == ["s4_test_000001"]
    assert "skipped s4_test_000001" in evaluate.err


def test_binary_predictions_with_the_levels_0_and_1_are_rejected(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    assert evaluate("--save-masks", masks) == 0
    for path in masks.rglob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) // 255)
    assert score_predictions(evaluate, masks) == 3
    assert "save binary masks with the levels 0 and 255" in evaluate.err


def test_masks_in_the_colours_of_classes_are_scored_by_class(
    evaluate: Evaluate, avss: Path, tmp_path: Path
) -> None:
    words = ("--subset", "avss", "--split", "val")
    evaluate.data = avss
    masks = Path(shutil.copytree(avss / "AVSBench_semantic", tmp_path / "masks"))
    wrong = np.zeros((12, 16, 3), np.uint8)
    wrong[:9, :, 2] = 64  # the handpan's colour on the accordion too
    Image.fromarray(wrong).save(masks / "v1m" / "three" / "labels_rgb" / "4.png")
    assert score_predictions(evaluate, masks, *words, "--json") == 0
    record = evaluate.record
    assert record["miou"] == pytest.approx(1.0)
    assert {name: scores["frames"] for name, scores in record["classes"].items()} == {
        "background": 5,
        "accordion": 5,
        "handpan": 5,
    }
    assert record["classes"]["accordion"]["iou"] == pytest.approx(4 / 5)
    handpan = (4 + 6 / 9) / 5
    assert record["classes"]["handpan"]["iou"] == pytest.approx(handpan, abs=0.01)
    total = 1 + 4 / 5 + handpan
    assert record["present_class_miou"] == pytest.approx(total / 3, abs=0.01)
    assert record["class_miou"] == pytest.approx(total / 71, abs=0.001)
    assert record["naming"] == {"precision": 1.0, "recall": 9 / 10, "f1": pytest.approx(18 / 19)}
    assert score_predictions(evaluate, masks, *words) == 0
    lines = [line.split() for line in evaluate.out.splitlines()]
    assert ["accordion", "0.8000", "0.8000", "5"] in lines
    assert any(line[:3] == ["3", "that", "occur"] for line in lines)
    assert any(line[:2] == ["all", "71"] for line in lines)


def test_why_there_are_no_scores_by_class_is_said(
    evaluate: Evaluate, avss: Path, tmp_path: Path
) -> None:
    words = ("--subset", "avss", "--split", "val")
    evaluate.data = avss
    gate = ("--silence-dbfs", "off")  # the data is silent
    assert evaluate(*words, *gate, "--save-masks", tmp_path / "masks") == 0
    assert "only binary scores: masks have no names; set --hear to words" in evaluate.err
    assert score_predictions(evaluate, tmp_path / "masks", *words, "--json") == 0
    reason = "the masks of three do not have the colours of AVSBench-semantic's classes"
    assert evaluate.record["no_class_scores"] == reason
    assert reason in evaluate.err


def test_options_that_need_a_model_do_not_go_with_predictions(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    assert score_predictions(evaluate, tmp_path / "nowhere") == 2
    assert score_predictions(evaluate, tmp_path, "--audio", "noise") == 2
    assert "--audio has no effect on --predictions" in evaluate.err
    assert evaluate("--predictions", tmp_path) == 2
    assert "--predictions and --model exclude each other" in evaluate.err


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


@pytest.mark.parametrize(
    ("flag", "name", "complaint"),
    [
        ("--contact-sheet", "sheet.txt", "not a .png file; use that suffix"),
        ("--csv", "nope/scores.csv", "nope does not exist; create it"),
        ("--csv", "", "is a folder; use the name of a file in it"),
        ("--csv", "a" * 5_000, "File name too long"),
    ],
)
def test_output_paths_are_checked_before_the_work(
    evaluate: Evaluate, tmp_path: Path, flag: str, name: str, complaint: str
) -> None:
    assert evaluate(flag, tmp_path / name) == 2
    (line,) = evaluate.err.splitlines()
    assert complaint in line
    assert list(tmp_path.iterdir()) == []


def test_missing_files_are_taken_from_raw_videos_with_a_warning_or_refused(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(evaluate.data, tmp_path / "copy"))
    shutil.rmtree(copy / "Single-source" / "s4_data" / "visual_frames")
    next(copy.rglob("s4_test_000001.wav")).unlink()
    assert evaluate("--json", data=copy) == 0
    assert evaluate.record["frames_from_raw_videos"] == 2
    assert evaluate.record["sound_from_raw_videos"] == 1
    assert evaluate.err.splitlines() == [
        "av2tsam: 2 videos without extracted frames (such as s4_test_000000): raw_videos is used",
        "av2tsam: 1 video without a WAV file (s4_test_000001): raw_videos is used",
    ]
    assert evaluate("--strict", data=copy) == 3
    (line,) = evaluate.err.splitlines()
    assert line.endswith("(such as s4_test_000000); extract the frames, or omit --strict")
    assert evaluate("--strict", "--json") == 0
    assert evaluate.record["frames_from_raw_videos"] == 0


def test_short_sound_is_padded_with_a_note(
    evaluate: Evaluate, tmp_path: Path, write_wav: Callable[..., Path]
) -> None:
    copy = Path(shutil.copytree(evaluate.data, tmp_path / "copy"))
    write_wav(next(copy.rglob("s4_test_000001.wav")), [np.full(40_000, 0.1)])
    assert evaluate("--strict", "--json", data=copy) == 0
    assert evaluate.record["padded_sounds"] == 1
    assert evaluate.record["frames"] == 10
    (line,) = evaluate.err.splitlines()
    assert line.endswith("(s4_test_000001): it is padded with silence, as in AVSBench")


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
