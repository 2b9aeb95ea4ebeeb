"""`av2tsam train` as it is typed."""

import json
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.synth.dataset import write_dataset


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[str]:
    """Three videos, an epoch or two."""
    out = tmp_path_factory.mktemp("lessons")
    write_dataset(out, subset="s4", videos=4, seed=2, split_sizes=(3, 1, 0), workers=1)
    given = ["--data", str(out), "--model", str(tiny_model), "--cache", str(out / "cache")]
    return ["train", *given, "--batch-size", "2", "--device", "cpu"]


def test_a_run_tells_its_scores_and_goes_on_with_its_own_options(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*words, "--out", str(run), "--epochs", "2", "--max-steps", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["steps"] == 2
    assert record["checkpoint"] == str(run / "best.safetensors")
    table = [line.split() for line in err.splitlines() if not line.startswith("av2tsam")]
    assert table[0][:3] == ["epoch", "loss", "val"]
    assert table[1][0] == "1"
    assert float(table[1][2]) == pytest.approx(record["best"]["val_miou"], abs=1e-4)
    assert main(["train", "--out", str(run), "--resume", "--lr", "0.1"]) == 2
    assert "--lr 0.1" in capsys.readouterr().err
    assert main(["train", "--out", str(run), "--resume", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert [row["epoch"] for row in json.loads(out)["epochs"]] == [1, 2]


def test_what_was_trained_segments(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*words, "--out", str(run), "--epochs", "1", "--quiet"]) == 0
    clip = next(Path(words[2]).rglob("*.mp4"))
    told = ["segment", str(clip), "--model", str(run / "best.safetensors"), "--fps", "1"]
    assert main([*told, "--out", str(tmp_path / "overlay.mp4"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "code", "complaint"),
    [
        ([], 2, "--out"),
        (["--out", "RUN", "--epochs", "0"], 2, "--epochs"),
        (["--out", "RUN", "--lr", "0"], 2, "--lr 0"),
        (["--out", "RUN", "--subset", "s5"], 2, "--subset"),
        (["--out", "RUN", "--resume"], 2, "no run to go on with"),
        (["--out", "RUN", "--resume", "--overwrite"], 2, "--overwrite"),
        (["--out", "RUN", "--subset", "ms3"], 3, "ms3_meta_data.csv"),
        (["--out", "RUN", "--data", "nowhere"], 3, "nowhere"),
        (["--out", "RUN", "--model", "nobody"], 4, "nobody"),
        (["--out", "RUN", "--cache-features"], 2, "--no-adapter"),
        (["--out", "RUN", "--precision", "fp16"], 2, "--precision fp16"),
        (["--out", "RUN", "--train-clips", "4"], 2, "only 3"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    given: list[str],
    code: int,
    complaint: str,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(tmp_path / "run") if word == "RUN" else word for word in given]
    assert main([*words, *given]) == code
    err = capsys.readouterr().err
    assert complaint in err
    assert sum("error" in line for line in err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_without_a_login_is_one_line_and_leaves_nothing(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Where the package is not installed, that is what the line says.
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "online")
    assert main([*words, "--out", str(tmp_path / "run"), "--wandb", "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("av2tsam: error: --wandb: ")
    assert not (tmp_path / "run").exists()
