"""`av2tsam config`: show the options of commands, and where each is set."""

from collections.abc import Sequence
from typing import Annotated

from av2tsam_cli.cli.app import command_options
from av2tsam_cli.cli.console import Console, escape, print_json, print_table, print_text
from av2tsam_cli.cli.defaults import (
    check_tables,
    default_files,
    other_variables,
    read_defaults,
    variable,
    variable_prefix,
)
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.errors import UsageError
from av2tsam_cli.options import Messages, Option, OptionField, unknown

BUILT_IN = "built-in"

app = new_app("Show the options of commands, and where each is set.")


@command(
    app,
    examples=[
        ("av2tsam config show", "which defaults are set, and where"),
        ("av2tsam config show segment", "all options of a command"),
    ],
)
def show(
    words: Annotated[
        list[str],
        Option(
            "a command, such as segment or data synth",
            metavar="COMMAND",
            positional=True,
            default="all commands, only what is set",
        ),
    ] = [],  # noqa: B006 - it is not changed
    *,
    messages: Messages,
) -> int:
    """Show the options of a command and where they are set, apart from the command line.

    The command line takes precedence over the file of --config, that over environment variables,
    these over av2tsam.toml in the current folder, and that over the user's av2tsam.toml.
    docs/scripts.md describes the names of the variables and the file.
    """
    commands = command_options()
    name = " ".join(words)
    if name and name not in commands:
        raise UsageError(unknown("command", name, list(commands)))
    for file in default_files():
        check_tables(file, commands)
    rows = [
        row
        for each in ([name] if name else commands)
        for row in _rows(each, commands[each], everything=bool(name))
    ]
    if messages.json:
        keys = ("command", "option", "value", "origin")
        files = [{"path": file, "exists": file.exists()} for file in default_files()]
        print_json({"files": files, "options": [dict(zip(keys, row, strict=True)) for row in rows]})
    else:
        for file in default_files():
            print_text(f"{escape(str(file))}: {'read' if file.exists() else 'not found'}\n")
        head = ("command", "option", "value", "set by")
        print_table(head, [(each, flag, _shown(value), by) for each, flag, value, by in rows])
    for line in other_variables(_variables(commands)):
        Console(messages).note(line)
    return 0


def _rows(
    name: str, fields: Sequence[OptionField], *, everything: bool
) -> list[tuple[str, str, object, str]]:
    """Return the command, flag, value and origin of all options, or of those that are set."""
    settings = read_defaults(name, fields)
    rows: list[tuple[str, str, object, str]] = []
    for field in fields:
        setting = settings.get(field.name)
        if setting is not None:
            rows.append((name, field.flag, setting.value, setting.origin))
        elif everything and not field.option.positional:
            rows.append((name, field.flag, _built_in(field), BUILT_IN))
    return rows


def _built_in(field: OptionField) -> object:
    """Return the built-in default; in words if it depends on something."""
    if field.required or field.default in (None, ()):
        return field.default_text or None
    return field.default if field.is_flag else str(field.default)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str("" if value is None else value)


def _variables(commands: dict[str, tuple[OptionField, ...]]) -> list[str]:
    return [
        variable(variable_prefix(name), field)
        for name, fields in commands.items()
        for field in fields
    ]
