import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from av2tsam_cli import __version__
from av2tsam_cli.__main__ import main

SOLO = Path(__file__).parents[2] / "sample_media" / "solo.mp4"
HEAVY = ("torch", "av", "cv2", "librosa", "transformers", "scipy", "numpy")


def run_python(code: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(
    "words", [["--help"], [], ["segment", "-h"], ["data", "synth", "-h"], ["vocabulary", "-h"]]
)
def test_help_imports_no_heavy_package(words: list[str]) -> None:
    out = run_python(
        "import sys\n"
        "from av2tsam_cli.__main__ import main\n"
        "try:\n"
        f"    code = main({words!r})\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        f"print('CODE', code, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    assert "usage: av2tsam" in out.lower()
    assert out.splitlines()[-1] == "CODE 0 []"


def test_the_package_has_its_public_names_without_importing_torch() -> None:
    out = run_python(
        "import sys, av2tsam\n"
        "print('torch' in sys.modules, {'load_model', 'segment_video'} <= set(dir(av2tsam)))\n"
        "print(callable(av2tsam.segment_video), 'torch' in sys.modules)\n"
    )
    assert out.splitlines() == ["False True", "True False"]


def test_help_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert not err
    for word in ("segment", "data", "models", "doctor", "Exit codes", "130"):
        assert word in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"av2tsam {__version__}\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["segmnt"], "unknown command 'segmnt'; did you mean 'segment'?"),
        (["--verison"], "unknown option '--verison'; did you mean '--version'?"),
        (
            ["segment", "a.mp4", "--out", "o.mp4", "--thresold", "1"],
            "unknown option '--thresold'; did you mean '--threshold'?",
        ),
        (
            ["segment", "a.mp4", "--out", "o.mp4", "--wild"],
            "unknown option '--wild'; see 'av2tsam segment --help'",
        ),
        (["segment", "a.mp4", "--out"], "--out: needs a value, PATH"),
        (["segment", "a.mp4", "--overwrite=no"], "--overwrite: takes no value"),
        (["segment", "--out", "o.mp4"], "INPUT"),
        (["segment", "a.mp4"], "--out"),
        (["segment", "a.mp4", "--out", "o.mp4", "--device", "tpu"], "unknown device 'tpu'"),
        (["segment", "a.mp4", "--out", "o.mp4", "--fps", "often"], "often"),
        (
            ["segment", "a.mp4", "--out", "o.mp4", "--hard", "--feather", "2"],
            "--hard and --feather exclude each other",
        ),
        (["solo.mp4"], "unknown command 'solo.mp4'; did you mean: av2tsam segment solo.mp4?"),
        (["*.mp4"], "did you mean: av2tsam segment '*.mp4'?"),
        (["https://a.org/b.mp4"], "did you mean: av2tsam segment https://a.org/b.mp4?"),
        (["segment", "ftp://a.org/b.mp4", "--out", "o.mp4"], "ftp:// is not supported"),
        (["segment", "a.mp4", "--out", "o", "-f", "mask"], "did you mean 'masks'?"),
        (["models"], "missing command; use list, "),
        (["segment", "a" * 5_000, "--out", "o.mp4"], "File name too long"),
        (["data", "check", "a" * 5_000], "File name too long"),
        (["data", "paint", "x"], "paint"),
        (["models", "sell"], "sell"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out
    assert len(err.splitlines()) == 1
    assert err.startswith("av2tsam: error: ")
    assert complaint in err


@pytest.mark.parametrize("words", [["--help"], ["segment", "--help"]])
def test_help_starts_with_examples_and_fits_on_a_page(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Examples:"
    assert [line.split()[0] for line in lines[1:4]] == ["av2tsam"] * 3
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "<" in line or "[default" in line]


@pytest.mark.parametrize(
    "words",
    ["listen", "train", "evaluate", "data", "data synth", "data check", "models", "doctor"]
    + ["vocabulary", "vocabulary show", "vocabulary check", "runs", "runs compare"]
    + [
        f"models {name}" for name in ("list", "info", "path", "pull", "verify", "remove", "convert")
    ],
)
def test_help_fits_into_80_columns_without_types(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "--help-all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if "<" in line or "[default" in line]


def test_help_all_adds_the_options_for_experts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "--help"]) == 0
    short = capsys.readouterr().out
    assert main(["segment", "--help-all"]) == 0
    full = capsys.readouterr().out
    assert full.startswith(short.rstrip())
    assert "--batch-size" in full
    assert "--batch-size" not in short
    assert "--help-all" in short


def test_debug_prints_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segment", "a.mp4", "--out", "o.avi", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("av2tsam: error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "words", [["--version"], ["segment", "--help"], ["listen", str(SOLO), "--model", "nano"]]
)
def test_a_stdout_that_cannot_be_written_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("av2tsam: error: stdout: cannot be written (No space left on device); ")


def test_a_reader_that_ends_early_ends_the_command_silently(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["listen", str(SOLO), str(SOLO), "--model", "nano", "--json"]) == 141
    assert not capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="closes streams in a POSIX shell")
def test_closed_streams_are_no_crash() -> None:
    command = f"{shlex.quote(sys.executable)} -m av2tsam_cli --version"
    closed = subprocess.run(  # noqa: S602 - our own command
        f"{command} >&-; echo $?; {command} wrong 2>&-; echo $?",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert closed.stdout.splitlines()[0] == "1"
    assert closed.stderr.count("\n") == 1
    assert "stdout: cannot be written" in closed.stderr
