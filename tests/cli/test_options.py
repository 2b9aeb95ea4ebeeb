import inspect
import math
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.cli import segment as segment_command
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.cluster.resources import RayOptions
from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import (
    Messages,
    ModelOptions,
    OptionField,
    VocabularyOptions,
    option_fields,
)
from av2tsam_cli.pipeline import segment_video
from av2tsam_cli.segment_options import SegmentOptions

SEGMENT = {field.name: field for field in option_fields(SegmentOptions)}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("start", "90", 90.0),
        ("start", "1:30.5", 90.5),
        ("start", "01:02:03", 3723.0),
        ("fps", "25", Fraction(25)),
        ("fps", "12.5", Fraction(25, 2)),
        ("fps", "30000/1001", Fraction(30000, 1001)),
        ("silence_dbfs", "-45.5", -45.5),
        ("silence_dbfs", "off", None),
        ("reuse", "off", None),
        ("threshold", "0.25", 0.25),
        ("batch_size", "4", 4),
        ("audio_stream", "eng", "eng"),
    ],
)
def test_option_values_are_parsed(name: str, text: str, value: object) -> None:
    assert SEGMENT[name].parse(text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("start", "1:2:3:4"),
        ("start", "1:-5"),
        ("start", "soon"),
        ("fps", "often"),
        ("fps", "1/0"),
        ("silence_dbfs", "loud"),
        ("threshold", "half"),
        ("batch_size", "1.5"),
    ],
)
def test_errors_for_invalid_values_name_the_option(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}`: '{text}' is not"):
        SEGMENT[name].parse(text)


@pytest.mark.parametrize("value", [-5.0, math.nan, math.inf])
def test_an_invalid_start_is_a_usage_error(value: float) -> None:
    with pytest.raises(UsageError, match="`start` must be 0 or later"):
        SegmentOptions(start=value)


def test_errors_for_unknown_choices_suggest_the_closest_one() -> None:
    with pytest.raises(UsageError, match="unknown format 'mask'; did you mean 'masks'"):
        SegmentOptions(format="mask")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown device 'gpu0'; use auto, cpu, cuda or mps"):
        ModelOptions(device="gpu0")  # type: ignore[arg-type]


def test_the_options_of_segment_agree_in_python_and_on_the_command_line() -> None:
    defined = {field.name: field.default for field in fields(SegmentOptions)}
    defined |= {field.name: field.default for field in fields(ModelOptions)}
    command = {field.name: field.default for field in _command_options()}
    assert defined.items() <= command.items()
    only_there = {"inputs", "out", "skip_existing", "compile", "devices"} | {
        field.name for options in (Messages, RayOptions) for field in option_fields(options)
    }
    only_there |= {"recursive", "files_from", "null", "name_template", "dry_run", "staging"}
    assert command.keys() - defined.keys() == only_there

    keywords = {
        parameter.name: parameter.default
        for parameter in inspect.signature(segment_video).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert keywords == defined | {"progress": None}


def _command_options() -> tuple[OptionField, ...]:
    (registered,) = segment_command.app.registered_commands
    options: tuple[OptionField, ...] = registered.callback.page.options  # type: ignore[union-attr]
    return options


def test_an_option_that_takes_several_values_is_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app, received = new_app(), []

    @command(app, config=True)
    def name(*, options: VocabularyOptions) -> int:
        """Name things."""
        received.append(options)
        return 0

    def run(*words: str) -> None:
        app(list(words), prog_name="name", standalone_mode=False)

    config = tmp_path / "config.yaml"
    config.write_text("name: [cat, kazoo]")
    run("--name", "dog", "--name", "acoustic guitar", "--vocabulary", "mine.toml")
    run()
    run("--config", str(config))
    assert [options.name for options in received] == [
        ("dog", "acoustic guitar"),
        (),
        ("cat", "kazoo"),
    ]
    assert received[0].vocabulary == Path("mine.toml")
    run("--help")
    assert "--name NAME            use only this name, such as dog (repeatable)" in (
        capsys.readouterr().out
    )


def test_commands_read_options_from_a_file_unless_they_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("data: absent\nlimit: 1\n")
    assert main(["evaluate", "--config", str(config)]) == 2
    assert "absent: folder not found" in capsys.readouterr().err
    assert main(["evaluate", "--config", str(config), "--limit", "0"]) == 2
    assert "--limit must be 1 or more, not 0" in capsys.readouterr().err
    config.write_text("limits: 1\n")
    assert main(["evaluate", "--config", str(config)]) == 2
    assert f"{config}: unknown option 'limits'; did you mean 'limit'?" in capsys.readouterr().err
