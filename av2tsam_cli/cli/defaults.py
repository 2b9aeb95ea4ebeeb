"""Defaults of options from `av2tsam.toml` and from environment variables."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av2tsam_cli.errors import UsageError
from av2tsam_cli.option_files import convert_option, convert_options, read_mapping
from av2tsam_cli.options import Messages, ModelOptions, OptionField, option_fields, unknown

FILE_NAME = "av2tsam.toml"
PREFIX = "AV2TSAM_"

SHARED = (*option_fields(ModelOptions), *option_fields(Messages))
"""The options that can be set for all commands at once."""

USER_FILE_ONLY = ("overwrite", "allow_url", "log_file")
"""Options that a file in the current folder cannot set. They can change other files or connect to
other computers, and such a file may come from somebody else, together with videos."""

_SWITCHES = {"1": "true", "0": "false"}


@dataclass(frozen=True)
class Setting:
    """The value of an option, and where it was set."""

    value: bool | str | list[str]
    """Text as on the command line, a list of texts for a list; True or False for a flag."""
    origin: str
    """Where it was set: `command line`, a file, or an environment variable."""
    is_default: bool = False
    """Whether it is a default, from `av2tsam.toml` or the environment."""


def user_file() -> Path:
    """Return the path of the user's `av2tsam.toml`, whether or not it exists."""
    from platformdirs import user_config_path

    return user_config_path("av2tsam", appauthor=False) / FILE_NAME


def default_files() -> tuple[Path, Path]:
    """Return the files that can set defaults, whether or not they exist; the first wins."""
    return Path(FILE_NAME), user_file()


def read_defaults(command: str, fields: Sequence[OptionField]) -> dict[str, Setting]:
    """Return the defaults of a command that are set in files and environment variables.

    Variables take precedence over files, the file in the current folder over the user's file, and
    settings for one command over settings for all commands.

    Args:
        command: The command, such as `segment` or `data synth`.
        fields: Its options.

    Raises:
        UsageError: A file cannot be read, an option is unknown, or a value is invalid.
    """
    shared = [field for field in fields if _is_shared(field)]
    here, user = default_files()
    values = {**_from_file(user, command, fields), **_from_file(here, command, fields)}
    values |= _from_environment(PREFIX, shared)
    prefix = variable_prefix(command)
    _check_variables(prefix, fields)
    return values | _from_environment(prefix, fields)


def variable_prefix(command: str) -> str:
    """Return the prefix of the environment variables for the options of one command."""
    return f"{PREFIX}{command.upper().replace(' ', '_')}_"


def variable(prefix: str, field: OptionField) -> str:
    """Return the environment variable for an option."""
    return f"{prefix}{field.name.upper()}"


def _is_shared(field: OptionField) -> bool:
    """Return whether an option is a shared one, not another option with the same name."""
    return any(field.name == each.name and field.option == each.option for each in SHARED)


def _from_file(path: Path, command: str, fields: Sequence[OptionField]) -> dict[str, Setting]:
    try:
        content = read_mapping(path)
    except FileNotFoundError:
        return {}
    names = {field.name for field in fields if _is_shared(field)}
    everywhere = {key: value for key, value in content.items() if not isinstance(value, dict)}
    for key in everywhere:
        _check_shared(path, key)
    values = convert_options(everywhere, SHARED, str(path))
    values = {name: value for name, value in values.items() if name in names}
    values |= convert_options(_table(content, command), fields, f"{path}: [{_dotted(command)}]")
    if path != user_file():
        for name in USER_FILE_ONLY:
            if name in values:
                raise UsageError(
                    f"{path}: `{name}` cannot be set by a file in the current folder; set it on "
                    f"the command line, or in {user_file()}"
                )
    return {name: Setting(value, str(path), is_default=True) for name, value in values.items()}


def _check_shared(path: Path, key: str) -> None:
    names = [field.name for field in SHARED]
    if key.replace("-", "_") not in names:
        advice = "options of one command belong into its table, such as [segment]"
        raise UsageError(f"{path}: {unknown('option for all commands', key, names, advice)}")


def _table(content: Mapping[str, Any], command: str) -> Mapping[str, Any]:
    """Return the table of a command, without the tables in it; `data synth` has [data.synth]."""
    for word in command.split():
        table = content.get(word, {})
        content = table if isinstance(table, dict) else {}
    return content


def _dotted(command: str) -> str:
    return command.replace(" ", ".")


def _from_environment(prefix: str, fields: Sequence[OptionField]) -> dict[str, Setting]:
    return {
        field.name: Setting(_variable_value(name, text, field), name, is_default=True)
        for field in fields
        if not field.option.positional
        and (text := os.environ.get(name := variable(prefix, field), ""))
    }


def _variable_value(name: str, text: str, field: OptionField) -> bool | str | list[str]:
    try:
        if field.is_list:
            return convert_option(field, text.split(","))
        return convert_option(field, _SWITCHES.get(text, text) if field.is_flag else text)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _check_variables(prefix: str, fields: Sequence[OptionField]) -> None:
    """Check that all variables with the prefix of a command belong to its options."""
    known = [variable(prefix, field) for field in fields if not field.option.positional]
    for name in os.environ:
        if name.startswith(prefix) and name not in known:
            raise UsageError(unknown("environment variable", name, known, "unset it"))


def other_variables(known: Sequence[str]) -> Iterator[str]:
    """Yield a message for each unknown variable that starts with the prefix of this program.

    Args:
        known: The variables of all commands.
    """
    names = [*known, *(variable(PREFIX, field) for field in SHARED), f"{PREFIX}HOME"]
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in names:
            yield unknown("environment variable", name, names, "it has no effect")


def check_tables(path: Path, commands: Mapping[str, Sequence[OptionField]]) -> None:
    """Check that all tables of a file belong to commands.

    Args:
        path: The file; it may be missing.
        commands: All commands with their options.

    Raises:
        UsageError: A table belongs to no command.
    """
    try:
        content = read_mapping(path)
    except FileNotFoundError:
        return
    for name in _tables(content):
        if not any(f"{command} ".startswith(f"{name} ") for command in commands):
            dotted = [_dotted(command) for command in commands]
            raise UsageError(f"{path}: {unknown('table', _dotted(name), dotted)}")


def _tables(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield f"{prefix}{key}"
            yield from _tables(value, f"{prefix}{key} ")
