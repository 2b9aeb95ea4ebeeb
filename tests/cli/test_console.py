"""What reaches a terminal: names that contain control characters are shown escaped."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from av2tsam_cli.__main__ import main
from av2tsam_cli.cli.console import Console, escape, print_table, print_text
from av2tsam_cli.hub.tensor_file import read_metadata
from av2tsam_cli.options import Messages

HOSTILE = "a\x1b[2J\nb\u202ec\udce9[red]x[/red].mp4"
"""Clears the screen, fakes a line, reverses letters, is not UTF-8, and is coloured by Rich."""
SHOWN = r"a\x1b[2J\nb\u202ec\udce9[red]x[/red].mp4"


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


def test_what_a_person_can_read_is_not_escaped() -> None:
    text = "Käse 猫 می‌خواهم 👨‍👩‍👧 [b] \\x1b"
    assert escape(text) == text
    assert escape("\x07\x7f\x9b\u2028\ufeff\u2066") == r"\x07\x7f\x9b\u2028\ufeff\u2066"


@pytest.mark.parametrize("debug", [False, True])
def test_errors_are_one_line_without_control_characters(
    debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", HOSTILE, "-o", "out.mp4", *(["--debug"] if debug else [])]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.endswith(f"av2tsam: error: {SHOWN}: no file matches; check the pattern\n")
    assert "\x1b" not in err
    assert debug or err.count("\n") == 1


def test_notes_and_progress_bars_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    console = Console(Messages())
    console.note(f"{HOSTILE}: skipped")
    assert screen.getvalue() == f"av2tsam: {SHOWN}: skipped\n"
    with console.progress(HOSTILE, 2) as update:
        assert update is not None
        update(1)
    assert "\x1b[2J" not in screen.getvalue()
    assert screen.getvalue().count(SHOWN) >= 2


@pytest.mark.parametrize("is_terminal", [False, True])
def test_tables_are_escaped(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    print_table(("name", "score"), [(HOSTILE, "1")])
    head, row = (line.split() for line in screen.getvalue().splitlines())
    assert head == ["name", "score"]
    assert row == [SHOWN, "1"]


def test_text_is_escaped_on_a_terminal_and_exact_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for screen, shown in ((Terminal(), "\\x1b[2J\n"), (io.StringIO(), "\x1b[2J\n")):
        monkeypatch.setattr(sys, "stdout", screen)
        print_text("\x1b[2J\n")
        assert screen.getvalue() == shown
    monkeypatch.setattr(sys, "stdout", narrow := Terminal("ascii"))
    print_text("Käse\n")
    assert narrow.getvalue() == "K\\xe4se\n"


def test_json_keeps_names_exactly(
    tiny_model: Path, make_clip: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    video = make_clip(seconds=0.2).rename(folder / HOSTILE.replace("[red]x[/red]", ""))
    model = folder / "m\x1b.safetensors"
    shutil.copyfile(tiny_model, model)
    words = ["segment", str(video), "-o", str(tmp_path / "out"), "-f", "masks", "-m", str(model)]
    assert main([*words, "--text", "dog", "--json"]) == 0
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert record["input"] == str(video)
    assert [Path(path).name for path in record["outputs"]] == [video.stem]
    assert len(list((tmp_path / "out" / video.stem).glob("*.png"))) == 5
    assert "\x1b" not in captured.err


def test_metadata_of_a_checkpoint_is_escaped(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.safetensors"
    notes = {"note": "a\x1b[2J\nlicence: none", "\x1bkey": "[1, 2]"}
    save_file(load_file(tiny_model), path, {**read_metadata(tiny_model), **notes})
    assert main(["models", "info", str(path)]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert r"note: a\x1b[2J\nlicence: none" in lines
    assert r"\x1bkey: 1, 2" in lines
    assert main(["models", "info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == notes["note"]
