import json

import pytest

from av2tsam_cli import __version__
from av2tsam_cli.__main__ import main


def test_doctor_says_what_is_here_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["av2tsam"] == __version__
    assert "libx264" in lines["encoders"]
    assert "h264" in lines["decoders"]
    assert "cores" in lines["cpu"]
    assert code == (0 if lines["missing"] == "nothing" else 1)


def test_doctor_in_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["torch"]
    assert {"cuda", "mps", "ffmpeg", "models"} <= set(report)
    assert code == (1 if report["missing"] else 0)
