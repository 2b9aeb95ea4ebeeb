"""Read options from YAML and TOML files, and write them as TOML."""

import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from av2tsam_cli.errors import UsageError
from av2tsam_cli.files import read_text_file
from av2tsam_cli.options import OptionField, option_fields, unknown

SUFFIXES = (".toml", ".yaml", ".yml")
NO_VALUE = ("", "~", "null")
"""Values in YAML that mean no value."""


def read_options(path: Path, fields: Sequence[OptionField]) -> dict[str, bool | str | list[str]]:
    """Read options from a file that maps their names to values.

    Args:
        path: A file that ends in `.toml`, `.yaml` or `.yml`.
        fields: The options that the file may set. In names, `-` and `_` mean the same.

    Returns:
        Values by name, as on the command line: text, and True or False for flags.

    Raises:
        UsageError: The file is missing or invalid, an option is unknown, or a value is invalid.
    """
    try:
        content = read_mapping(path)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: file not found; check the path") from error
    return convert_options(content, fields, str(path))


def convert_options(
    content: Mapping[Any, Any], fields: Sequence[OptionField], where: str
) -> dict[str, bool | str | list[str]]:
    """Convert a mapping from options to values; see `read_options`.

    Args:
        content: The mapping, as read from a file.
        fields: The options that it may set.
        where: Its origin, for error messages.

    Raises:
        UsageError: An option is unknown, or its value is invalid.
    """
    known = {field.name: field for field in fields if not field.option.positional}
    values: dict[str, bool | str | list[str]] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise UsageError(f"{where}: {unknown('option', str(key), list(known))}")
        if isinstance(value, str) and value in NO_VALUE:
            continue
        try:
            values[name] = convert_option(known[name], value)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    return values


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read the mapping in a file; scalars of YAML are text, as on the command line.

    Raises:
        UsageError: The file cannot be read, or contains no mapping.
        FileNotFoundError: The file is missing.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: not a .toml, .yaml or .yml file; use one of these formats")
    try:
        text = read_text_file(path).decode("utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else _read_yaml(text)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path}: cannot be read ({reason}); correct the file") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: not a list of options; use lines such as 'epochs: 40'")
    return content


def _read_yaml(text: str) -> Any:
    """Parse YAML, with all scalars as text; otherwise, `off` would be False and `2e-4` text."""
    import yaml

    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - creates only text, lists and mappings
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def convert_option(field: OptionField, value: object) -> bool | str | list[str]:
    """Check a value from a file, and return it as on the command line.

    Raises:
        UsageError: The value is invalid.
    """
    if isinstance(value, list):
        texts = [_text(field, each) for each in value]
        if not field.is_list:
            return convert_option(field, ",".join(texts))
        for each in texts:
            field.check(field.parse(each))
        return texts
    if field.is_list:
        return convert_option(field, [value])
    text = _text(field, value)
    if field.is_flag:
        if text not in {"true", "false"}:
            raise UsageError(f"`{field.name}`: {text!r} is not true or false")
        return text == "true"
    if isinstance(value, bool):
        raise UsageError(f"`{field.name}`: {text} is not a value for {field.metavar}")
    field.check(field.parse(text))
    return text


def _text(field: OptionField, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        # Not shown, because a few lines of YAML can stand for gigabytes.
        raise UsageError(f"`{field.name}`: not a single value")
    return str(value)


def write_options(options: Any, *, without: Collection[str] = ()) -> str:
    """Return the options of a dataclass as TOML, for `read_options`.

    Args:
        options: An instance of a dataclass of options.
        without: Names of options to leave out. Options that are None are left out too.
    """
    lines = [
        f"{field.name} = {_toml(getattr(options, field.name))}\n"
        for field in option_fields(type(options))
        if field.name not in without and getattr(options, field.name) is not None
    ]
    return "".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
