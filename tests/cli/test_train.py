"""`av2tsam train` on the command line."""

import json
import shutil
from pathlib import Path

import cv2
import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.synth.dataset import write_dataset


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[str]:
    """Return a command line with a data set of three training videos."""
    out = tmp_path_factory.mktemp("dataset")
    write_dataset(out, subset="s4", videos=5, seed=2, split_sizes=(3, 1, 1), workers=1)
    options = ["--data", str(out), "--model", str(tiny_model), "--cache", str(out / "cache")]
    return ["train", *options, "--batch-size", "2", "--device", "cpu"]


def test_run_prints_its_scores_and_resumes_with_its_own_options(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["--out", str(run), "--epochs", "2", "--max-steps", "2", "--no-test", "--json"]
    assert main([*command, *options]) == 0
    out, err = capsys.readouterr()
    record = json.loads(out)
    assert record["steps"] == 2
    assert record["test"] is None
    assert record["checkpoint"] == str(run / "best.safetensors")
    assert cv2.imread(str(run / "curves.png")).std() > 0
    assert f"av2tsam: starting from {command[4]}: all weights\n" in err
    table = [line.split() for line in err.splitlines() if not line.startswith("av2tsam")]
    assert table[0][:3] == ["epoch", "loss", "val"]
    assert table[1][0] == "1"
    assert float(table[1][2]) == pytest.approx(record["best"]["val_miou"], abs=1e-4)
    assert main(["train", "--out", str(run), "--resume", "--lr", "0.1"]) == 2
    assert "--lr 0.1" in capsys.readouterr().err
    assert main(["train", "--out", str(run), "--resume", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    record = json.loads(out)
    assert [row["epoch"] for row in record["epochs"]] == [1, 2]
    assert record["test"] is None
    assert main(["train", "--out", str(run), "--resume", "--test"]) == 0
    test = json.loads((run / "run.json").read_text())["test"]
    assert f"test split, 1 video: mIoU {test['miou']:.4f}" in capsys.readouterr().out


def test_options_are_read_from_a_file_and_the_saved_ones_give_the_same_run(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses(run: Path) -> list[str]:
        return [line.split(",")[2] for line in (run / "steps.csv").read_text().splitlines()]

    config = tmp_path / "run.yaml"
    options = zip(command[1::2], command[2::2], strict=True)
    lines = [f"{flag.removeprefix('--')}: {value}\n" for flag, value in options]
    config.write_text("".join(lines) + f"out: {tmp_path / 'one'}\nmax_steps: 1\nlr: 1e-3\n")
    assert main(["train", "--config", str(config), "--quiet"]) == 0
    assert main(["train", "--config", str(config), "--quiet"]) == 2
    assert "already has a run" in capsys.readouterr().err
    saved = str(tmp_path / "one" / "config.toml")
    again = ["train", "--config", saved, "--out", str(tmp_path / "two"), "--quiet"]
    assert main([*again, "--lr", "2e-3"]) == 0
    assert main([*again, "--overwrite"]) == 0
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    resumed = ["train", "--out", str(tmp_path / "one"), "--resume", "--config", str(config)]
    config.write_text("lr: 0.1\n")
    assert main(resumed) == 2
    assert "--lr 0.1: the run" in capsys.readouterr().err
    config.write_text("learning-rate: 0.1\n")
    assert main(resumed) == 2
    assert f"{config}: unknown option 'learning-rate'" in capsys.readouterr().err


def test_run_per_seed_is_resumed_and_compared(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    short = [*command, "--out", str(out), "--max-steps", "1", "--json", "--quiet"]
    assert main([*short, "--seeds", "2"]) == 0
    first = json.loads(capsys.readouterr().out)
    resume = ["train", "--out", str(out), "--resume", "--max-steps", "1", "--json", "--quiet"]
    assert main(resume) == 2
    assert "has a run per seed; pass --seeds too" in capsys.readouterr().err
    assert main([*resume, "--seeds", "2,3"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["out"] for record in records] == [str(out / "seed-2"), str(out / "seed-3")]
    assert records[0]["best"] == first["best"]
    config = (out / "seed-3" / "config.toml").read_text()
    assert "seed = 3\n" in config
    assert "batch_size = 2\n" in config  # as in the first run

    assert main([*short, "--seeds", "4,3"]) == 2
    assert "already has a run" in capsys.readouterr().err
    assert not (out / "seed-4").exists()

    assert main(["runs", "compare", str(out), "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    scores = [record["best"]["val_miou"] for record in records]
    assert group["scores"]["val_miou"]["mean"] == pytest.approx(sum(scores) / 2)
    assert main(["runs", "compare", str(out), "--format", "latex"]) == 0
    assert r"$\pm$" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "1,1"], "--seeds: '1,1' is not a list of different seeds"),
        (["--seeds", "1,a"], "--seeds: '1,a' is not"),
    ],
)
def test_invalid_seeds_are_a_usage_error(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), *options]) == 2
    assert message in capsys.readouterr().err


def test_missing_files_are_recorded_or_refused_and_quiet_prints_the_result(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(command[2], tmp_path / "data"))
    next(data.rglob("s4_train_000001.wav")).unlink()
    command = [*command, "--data", str(data), "--out", str(tmp_path / "run"), "--epochs", "1"]
    assert main([*command, "--strict"]) == 3
    *_, line = capsys.readouterr().err.splitlines()
    assert "1 video without a WAV file (s4_train_000001); extract the sound" in line
    assert not (tmp_path / "run").exists()
    assert main([*command, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'run' / 'best.safetensors'}: epoch 1, validation mIoU ")
    assert err == ""
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["sound_from_raw_videos"] == 1
    assert record["data"]["frames_from_raw_videos"] == 0


def test_trained_model_segments_a_video(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main([*command, "--out", str(run), "--epochs", "1", "--quiet"]) == 0
    clip = next(Path(command[2]).rglob("*.mp4"))
    arguments = ["segment", str(clip), "--model", str(run / "best.safetensors"), "--fps", "1"]
    assert main([*arguments, "--out", str(tmp_path / "overlay.mp4"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "--out"),
        (["--out", "RUN", "--epochs", "0"], 2, "--epochs"),
        (["--out", "RUN", "--lr", "0"], 2, "--lr must be above 0"),
        (["--out", "RUN", "--subset", "s5"], 2, "unknown subset 's5'"),
        (["--out", "RUN", "--resume"], 2, "no run to resume"),
        (["--out", "RUN", "--resume", "--overwrite"], 2, "--overwrite"),
        (["--out", "RUN", "--subset", "ms3"], 3, "ms3_meta_data.csv"),
        (["--out", "RUN", "--data", "nowhere"], 2, "nowhere"),
        (["--out", "RUN", "--model", "missing"], 4, "missing"),
        (["--out", "RUN", "--cache-features"], 2, "--adapter"),
        (["--out", "RUN", "--precision", "fp16"], 2, "--precision fp16"),
        (["--out", "RUN", "--train-clips", "4"], 2, "only 3"),
    ],
)
def test_errors_are_one_line_and_leave_no_files(
    options: list[str],
    code: int,
    message: str,
    command: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [str(tmp_path / "run") if option == "RUN" else option for option in options]
    assert main([*command, *options]) == code
    err = capsys.readouterr().err
    assert message in err
    assert sum("error" in line for line in err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_without_a_login_is_one_line_and_leaves_no_files(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # If the package is not installed, the line reports that instead.
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "online")
    assert main([*command, "--out", str(tmp_path / "run"), "--wandb", "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("av2tsam: error: --wandb: ")
    assert not (tmp_path / "run").exists()


def test_train_needs_lightning_fabric(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("av2tsam_cli.inference.distributed.find_spec", lambda _: None)
    assert main([*command, "--out", str(tmp_path / "run"), "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'av2tsam[train]'" in line
    assert not (tmp_path / "run").exists()
