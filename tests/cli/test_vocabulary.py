import json
import re
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main

BROKEN = '[[source]]\nname = "dog"\nsound = ["x"]\n\n[[source]]\nname = "a/b"\n'


def test_show_lists_the_builtin_vocabulary_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vocabulary", "show"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    head, *rows = [re.split(" {2,}", line) for line in out.splitlines()]
    assert head == ["name", "sounds like", "look for", "synonyms"]
    table = {row[0]: row[1:] for row in rows}
    assert len(table) == len(rows) >= 150
    assert table["dog"] == [
        "a dog barking; a dog growling; a dog whimpering",
        "dog",
        "puppy, hound",
    ]
    assert table["choir"][1] == "choir (all)"
    assert table["silence"] == ["silence", "(background)"]
    starts = {line.index("(background)") for line in out.splitlines() if "(background)" in line}
    assert starts == {out.index("look for")}


def test_show_prints_a_file_with_its_defaults_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("kazoo\n")
    assert main(["vocabulary", "show", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["file"] == str(path)
    assert record["sources"] == [
        {
            "name": "kazoo",
            "sounds": ["kazoo"],
            "looks": "kazoo",
            "synonyms": [],
            "all_instances": False,
            "avss": "",
            "s4": "",
        }
    ]
    assert {"name": "silence", "sounds": ["silence"]} in record["backgrounds"]


def test_check_counts_the_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("dog\ncat\n")
    assert main(["vocabulary", "check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(
        rf"{re.escape(str(path))}: 2 sources and \d+ background sounds; no problems\n", out
    )
    assert err == ""


def test_check_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(BROKEN)
    assert main(["vocabulary", "check", str(path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"av2tsam: error: {path}, line 3: unknown key 'sound'; did you mean 'sounds'?",
        f"av2tsam: error: {path}, line 6: the name 'a/b' contains '/'; use letters, digits and "
        "spaces",
    ]
    assert main(["vocabulary", "check", str(path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [problem["line"] for problem in found["problems"]] == [3, 6]
    assert main(["vocabulary", "show", str(path)]) == 3
    assert "(1 more: av2tsam vocabulary check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["check", "gone.toml"], "gone.toml: file not found"),
        (["show", "gone.toml"], "gone.toml: file not found"),
        (["check"], "missing FILE"),
        (["chek"], "did you mean 'check'?"),
    ],
)
def test_wrong_arguments_are_a_usage_error(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vocabulary", *words]) == 2
    assert complaint in capsys.readouterr().err
