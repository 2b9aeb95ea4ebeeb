"""Defaults from av2tsam.toml and from environment variables, and `av2tsam config show`."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import av2tsam
from av2tsam_cli.__main__ import main
from av2tsam_cli.cli.defaults import user_file
from av2tsam_cli.cli.options import Given, command, new_app
from av2tsam_cli.options import ModelOptions

Run = Callable[..., dict[str, tuple[Any, str]]]


@pytest.fixture(autouse=True)
def _empty_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user_file().parent.mkdir(parents=True)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Run:
    """Values and origins of a command's options, by their flags."""

    def run(*command: str) -> dict[str, tuple[Any, str]]:
        assert main(["config", "show", *command, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        return {each["option"]: (each["value"], each["origin"]) for each in record["options"]}

    return run


def test_each_place_takes_precedence_over_the_next(
    shown: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown("segment")["--fps"] == ("auto for large models on CPUs, else all", "built-in")
    assert shown("segment")["--device"] == ("auto", "built-in")
    user_file().write_text('device = "cuda"\n[segment]\nfps = 1\nsmooth = false\n')
    assert shown("segment")["--fps"] == ("1", str(user_file()))
    Path("av2tsam.toml").write_text('device = "cpu"\n[segment]\nfps = 2.5\n')
    assert shown("segment")["--device"] == ("cpu", "av2tsam.toml")
    assert shown("segment")["--fps"] == ("2.5", "av2tsam.toml")
    assert shown("segment")["--smooth"] == (False, str(user_file()))
    monkeypatch.setenv("AV2TSAM_DEVICE", "mps")
    monkeypatch.setenv("AV2TSAM_SEGMENT_FPS", "30000/1001")
    assert shown("segment")["--device"] == ("mps", "AV2TSAM_DEVICE")
    assert shown("segment")["--fps"] == ("30000/1001", "AV2TSAM_SEGMENT_FPS")
    monkeypatch.setenv("AV2TSAM_SEGMENT_DEVICE", "cpu")
    assert shown("segment")["--device"] == ("cpu", "AV2TSAM_SEGMENT_DEVICE")
    assert shown("listen")["--device"] == ("mps", "AV2TSAM_DEVICE")
    assert shown() == {
        "--device": ("mps", "AV2TSAM_DEVICE"),
        "--fps": ("30000/1001", "AV2TSAM_SEGMENT_FPS"),
        "--smooth": (False, str(user_file())),
    }


def test_flags_lists_and_subcommands_can_be_set(
    shown: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("av2tsam.toml").write_text('[data.synth]\nvideos = 7\n[listen]\nname = ["dog", "cat"]\n')
    monkeypatch.setenv("AV2TSAM_SEGMENT_NAME", "bell,drum")
    monkeypatch.setenv("AV2TSAM_SEGMENT_HUD", "1")
    monkeypatch.setenv("AV2TSAM_SEGMENT_SMOOTH", "false")
    assert shown("data", "synth")["--videos"] == ("7", "av2tsam.toml")
    assert shown("listen")["--name"] == (["dog", "cat"], "av2tsam.toml")
    found = shown("segment")
    assert found["--name"][0] == ["bell", "drum"]
    assert found["--hud"][0] is True
    assert found["--smooth"][0] is False


def segment(clip: Path, model: Path, *words: str) -> list[str]:
    return ["segment", str(clip), "-o", "out", "-f", "masks", "-m", str(model), "--json", *words]


def test_segment_uses_the_defaults_and_says_so(
    tiny_model: Path,
    make_clip: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip = make_clip(seconds=0.2)
    Path("av2tsam.toml").write_text("[segment]\nsmooth = false\n")
    monkeypatch.setenv("AV2TSAM_SEGMENT_FPS", "5")
    assert main(segment(clip, tiny_model)) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert (record["smooth"], record["fps"]) == (False, "5")
    assert "av2tsam: --fps from AV2TSAM_SEGMENT_FPS; --smooth from av2tsam.toml\n" in captured.err

    shutil.rmtree("out")
    assert main(segment(clip, tiny_model, "--smooth", "--fps", "all")) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert (record["smooth"], record["fps"]) == (True, "all")
    assert "av2tsam.toml" not in captured.err


def test_a_flag_that_a_file_sets_can_be_switched_off(
    tiny_model: Path, make_clip: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(seconds=0.2)
    user_file().write_text("quiet = true\n[segment]\noverwrite = true\nhard = true\n")
    for _ in range(2):
        assert main(segment(clip, tiny_model)) == 0
    assert not capsys.readouterr().err
    assert main(segment(clip, tiny_model, "--no-overwrite")) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(segment(clip, tiny_model, "--feather", "2")) == 2
    assert f"(--hard is set by {user_file()})" in capsys.readouterr().err


def test_python_functions_ignore_the_defaults(
    tiny_model: Path, make_clip: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("av2tsam.toml").write_text("[segment]\nsmooth = false\n")
    monkeypatch.setenv("AV2TSAM_MODEL", "none")
    clip = make_clip(seconds=0.2)
    assert av2tsam.segment_video(clip, "out", format="masks", model=tiny_model).smooth


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[segment]\nfsp = 5\n", "[segment]: unknown option 'fsp'; did you mean 'fps'?"),
        ("fps = 5\n", "unknown option for all commands 'fps'; options of one command belong into"),
        ("[segment]\nfps = 'often'\n", "[segment]: --fps: 'often' is not a rate"),
        ('device = "tpu"\n', "unknown device 'tpu'"),
        ("[segment]\nthreshold = 7\n", "--threshold must be between 0 and 1"),
        ("[segment]\ninputs = 'a.mp4'\n", "[segment]: unknown option 'inputs'"),
        ("[segment]\nallow_url = true\n", "--allow-url cannot be set by a file in the current"),
        ("log_file = '/etc/passwd'\n", "--log-file cannot be set by a file in the current folder"),
        ("x = [" * 5000, "cannot be read"),
        ("\x00", "cannot be read"),
        ("a" * (1 << 24), "larger than"),
    ],
)
def test_errors_name_the_file(
    content: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("av2tsam.toml").write_text(content)
    assert main(["segment", "a.mp4", "-o", "out.mp4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "av2tsam.toml" in line
    assert complaint in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_a_file_that_cannot_be_read_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for make in (os.mkfifo, os.mkdir):
        make("av2tsam.toml")
        assert main(["doctor", "--json"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("av2tsam: error: av2tsam.toml: ")
        Path("av2tsam.toml").unlink() if make is os.mkfifo else Path("av2tsam.toml").rmdir()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("AV2TSAM_DEVICE", "tpu", "AV2TSAM_DEVICE: unknown device 'tpu'"),
        ("AV2TSAM_SEGMENT_FPS", "often", "AV2TSAM_SEGMENT_FPS: --fps: 'often' is not a rate"),
        ("AV2TSAM_SEGMENT_HUD", "yes", "AV2TSAM_SEGMENT_HUD: --hud: 'yes' is not true or false"),
        ("AV2TSAM_SEGMENT_FSP", "5", "did you mean 'AV2TSAM_SEGMENT_FPS'?"),
        ("AV2TSAM_SEGMENT_GROW", "9" * 5000, "AV2TSAM_SEGMENT_GROW: --grow"),
    ],
)
def test_errors_name_the_variable(
    name: str,
    value: str,
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["segment", "a.mp4", "-o", "out.mp4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_config_show_finds_what_has_no_effect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AV2TSAM_DEVIC", "cpu")
    monkeypatch.setenv("AV2TSAM_HOME", "/nowhere")
    assert main(["config", "show"]) == 0
    assert capsys.readouterr().err == (
        "av2tsam: unknown environment variable 'AV2TSAM_DEVIC'; did you mean 'AV2TSAM_DEVICE'?\n"
    )
    Path("av2tsam.toml").write_text("[segmnt]\nfps = 5\n")
    assert main(["config", "show"]) == 2
    assert "unknown table 'segmnt'; did you mean 'segment'?" in capsys.readouterr().err
    assert main(["config", "show", "segmnt"]) == 2
    assert "unknown command 'segmnt'; did you mean 'segment'?" in capsys.readouterr().err


def test_a_default_does_not_count_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed training keeps its own options, unless they are given on the command line."""
    app, received = new_app(), []

    @command(app, config=True)
    def cut(*, model: ModelOptions, given: Given) -> int:
        """Cut things."""
        received.append((model.device, model.precision, set(given)))
        return 0

    monkeypatch.setenv("AV2TSAM_DEVICE", "cpu")
    Path("cut.toml").write_text('precision = "fp32"\n')
    app(["--config", "cut.toml"], prog_name="av2tsam cut", standalone_mode=False)
    assert received == [("cpu", "fp32", {"config", "precision"})]
