import json

import pytest

from av2tsam_cli import __version__
from av2tsam_cli.__main__ import main


def test_doctor_shows_the_installation_and_ends_with_the_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    *rows, verdict = capsys.readouterr().out.splitlines()
    shown = dict(row.split(maxsplit=1) for row in rows)
    assert shown["av2tsam"] == __version__
    assert "libx264" in shown["encoders"]
    assert "h264" in shown["decoders"]
    assert "cores" in shown["cpu"]
    assert "nano" in shown["models"]
    assert "default model " in "\n".join(rows)
    assert verdict == "ready: 'av2tsam segment' can run"


def test_doctor_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["torch"]
    assert {"cuda", "mps", "ffmpeg", "models"} <= set(report)
    assert report["ready"] is True
    assert report["problems"] == []
