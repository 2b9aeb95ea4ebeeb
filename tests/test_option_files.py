"""Options in YAML and TOML files."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.option_files import read_options, write_options
from av2tsam_cli.options import Option, OptionField, SubsetOption, option_fields


def parse_level(text: str) -> float | None:
    return None if text == "off" else float(text)


@dataclass(frozen=True)
class CutOptions:
    out: Annotated[Path, Option("folder")]
    length: Annotated[float, Option("seconds")] = 10.0
    pieces: Annotated[int | None, Option("how many")] = None
    fps: Annotated[Fraction | None, Option("rate")] = None
    level: Annotated[float | None, Option("dBFS", parse=parse_level)] = -60.0
    fade: Annotated[bool | None, Option("fade in and out")] = None
    labels: Annotated[list[str], Option("names")] = ()  # type: ignore[assignment]
    subset: SubsetOption = "s4"


FIELDS = option_fields(CutOptions)
LAUGHS = "".join(f"  n{k + 1}: &a{k + 1} [{f'*a{k},' * 10}]\n" for k in range(12))
"""Each line repeats the one before it ten times: in full, they would be terabytes."""
BY_NAME = {field.name: field for field in FIELDS}


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


YAML = """
# a comment
out: runs/ü
length: 2e-4
pieces: 3
fps: 30000/1001
level: off
fade: true
labels: [dog, "no"]
subset: ms3
"""
TOML = """
out = "runs/ü"
length = 2e-4
pieces = 3
fps = "30000/1001"
level = "off"
fade = true
labels = ["dog", "no"]
subset = "ms3"
"""


@pytest.mark.parametrize(("name", "text"), [("a.yaml", YAML), ("a.yml", YAML), ("a.toml", TOML)])
def test_values_are_read_as_on_the_command_line(name: str, text: str, tmp_path: Path) -> None:
    values = read_options(write(tmp_path / name, text), FIELDS)
    assert values["fade"] is True
    assert values["labels"] == ["dog", "no"]
    parsed = {n: BY_NAME[n].parse(t) for n, t in values.items() if isinstance(t, str)}
    assert parsed == {
        "out": Path("runs/ü"),
        "length": 2e-4,
        "pieces": 3,
        "fps": Fraction(30000, 1001),
        "level": None,
        "subset": "ms3",
    }


def test_a_single_value_is_a_list_of_one(tmp_path: Path) -> None:
    assert read_options(write(tmp_path / "a.yaml", "labels: dog"), FIELDS) == {"labels": ["dog"]}


def test_names_may_be_written_as_on_the_command_line(tmp_path: Path) -> None:
    class Field:
        batch_size: int

    field = OptionField(**{**vars(BY_NAME["pieces"]), "name": "batch_size", "flag": "--batch-size"})
    path = write(tmp_path / "a.toml", "batch-size = 4")
    assert read_options(path, [field]) == {"batch_size": "4"}


def test_values_left_empty_in_yaml_are_not_set(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "pieces:\nlength: null\nfps: ~\n")
    assert read_options(path, FIELDS) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lenght = 3", "unknown option 'lenght'; did you mean 'length'?"),
        ("[cut]\nlength = 3", "unknown option 'cut'; "),
        ("length = 'long'", "`length`: 'long' is not a number"),
        ("length = true", "`length`: true is not a value for LENGTH"),
        ("length = {s = 3}", "`length`: not a single value"),
        ("pieces = 1.5", "`pieces`: '1.5' is not a whole number"),
        ("pieces = [1, 2]", "`pieces`: '1,2' is not a whole number"),
        ("subset = 's5'", "unknown subset 's5'; use s4, ms3 or avss"),
        ("fade = 1", "`fade`: '1' is not true or false"),
        ("fade =", "cannot be read"),
    ],
)
def test_errors_are_one_line_that_names_the_file_and_the_option(
    line: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.toml", line)
    with pytest.raises(UsageError) as caught:
        read_options(path, FIELDS)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.ini", "", "not a .toml, .yaml or .yml file"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.yaml", "length", "not a list of options"),
        ("a.yaml", "- length", "not a list of options"),
        ("a.yaml", "length: " + "[" * 5000, "cannot be read"),
        ("a.toml", "length = " + "[" * 5000, "cannot be read"),
        ("a.yaml", "#" * 2**20 + "\n", "larger than 1 MiB"),
        ("a.yaml", f"length:\n  n0: &a0 x\n{LAUGHS}", "`length`: not a single value"),
    ],
)
def test_files_that_are_no_options_are_a_usage_error(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        read_options(write(tmp_path / name, text), FIELDS)
    with pytest.raises(UsageError, match="file not found"):
        read_options(tmp_path / "absent.toml", FIELDS)


def test_written_options_can_be_read_again(tmp_path: Path) -> None:
    options = CutOptions(out=Path('a "b"\\c/ü🎻'), length=1e-7, fade=False, subset="ms3")
    options = replace(options, labels=["dog", 'a "b"'])
    path = write(tmp_path / "config.toml", write_options(options, without=("level",)))
    assert read_options(path, FIELDS) == {
        "out": 'a "b"\\c/ü🎻',
        "length": "1e-07",
        "fade": False,
        "labels": ["dog", 'a "b"'],
        "subset": "ms3",
    }
