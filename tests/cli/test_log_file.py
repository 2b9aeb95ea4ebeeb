"""The file of --log-file."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main

RECORD = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+[+-][\d:]+ \[\d+\] (\w+) +(.*)")


def records(path: Path) -> list[tuple[str, str]]:
    """The kinds and texts of a log; every line must have a time."""
    found = [RECORD.fullmatch(line) for line in path.read_text("utf-8").splitlines()]
    return [(match[1], match[2]) for match in found if match is not None or pytest.fail("no time")]


def test_notes_and_errors_are_appended_with_tracebacks(
    tiny_model: Path,
    make_clip: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip, log = make_clip(seconds=0.2), tmp_path / "run.log"
    missing = tmp_path / "a\nb.mp4"
    words = ["segment", str(clip), str(missing), "-o", str(tmp_path / "out"), "-f", "masks"]
    words += ["-m", str(tiny_model), "-q", "--log-file", str(log)]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    found = records(log)
    assert ("note", f"{clip}: no audio, so all masks are empty") in found
    assert ("error", f"{tmp_path}/a\\nb.mp4: file not found; check the path") in found
    assert any(kind == "trace" and "Traceback" in text for kind, text in found)
    assert found[-1] == ("end", "exit code 2")

    assert main([*words[:1], *words[2:]]) == 2
    again = records(log)
    assert again[: len(found)] == found
    assert again[-1] == ("end", "exit code 2")


def test_verbose_prints_the_model_the_codec_and_the_time_of_stages(
    tiny_model: Path,
    make_clip: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clip, out = make_clip(seconds=0.2), tmp_path / "out.mp4"
    words = ["segment", str(clip), "-o", str(out), "-m", str(tiny_model), "--device", "cpu"]
    assert main([*words, "-v"]) == 0
    err = capsys.readouterr().err
    assert f"model {tiny_model} on cpu in " in err
    assert f"{clip}: h264, yuv420p, 64 x 48 at 25 frames/s; no audio; to {out} as video, lib" in err
    assert " s for the network, " in err
    assert main([*words, "--overwrite", "--log-file", str(tmp_path / "log")]) == 0
    assert "s for the network" not in capsys.readouterr().err
    assert any(
        k == "detail" and "s for the network" in text for k, text in records(tmp_path / "log")
    )


def test_a_wrong_option_is_logged_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run.log"
    assert main(["listen", "a.mp4", "--device", "tpu", "--log-file", str(log)]) == 2
    assert any(kind == "error" and "unknown device 'tpu'" in text for kind, text in records(log))
    assert "unknown device" in capsys.readouterr().err


def test_other_files_are_not_appended_to(
    make_clip: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(seconds=0.2)
    content = clip.read_bytes()
    for path, complaint in [
        (clip, "exists and is not a log"),
        (tmp_path, "cannot be written as a log (Is a directory)"),
        (tmp_path / "none" / "a.log", "cannot be written as a log (No such file or directory)"),
    ]:
        assert main(["listen", str(clip), "--log-file", str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"av2tsam: error: {path}: {complaint}; use another --log-file")
    assert clip.read_bytes() == content
