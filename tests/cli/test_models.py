import json
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main


def test_list_names_every_model_and_whether_it_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"nano", "evf-sam", "evf-sam2"} <= set(lines)
    assert lines["evf-sam"] == "not installed"
    assert main(["models", "list", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["model"]: record["installed"] for record in records}["evf-sam"] is False


def test_info_and_path_of_a_checkpoint(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "info", str(tiny_model), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["config"]["name"] == "tiny"
    assert record["bytes"] == tiny_model.stat().st_size
    assert main(["models", "path", str(tiny_model)]) == 0
    assert capsys.readouterr().out == f"{tiny_model}\n"


def test_a_model_that_is_not_here_is_exit_code_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "evf-sam"]) == 4
    assert "evf-sam is not installed" in capsys.readouterr().err
    assert main(["models", "info", "nonsense"]) == 4
    assert "nonsense" in capsys.readouterr().err
