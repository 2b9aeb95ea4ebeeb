"""Typer commands made from dataclasses of options, with their own help pages and error messages."""

import inspect
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NewType, cast, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from av2tsam_cli.cli.console import Console, log_record, name_flags, open_log, print_text
from av2tsam_cli.cli.defaults import Setting, read_defaults
from av2tsam_cli.errors import UsageError
from av2tsam_cli.option_files import read_options
from av2tsam_cli.options import (
    Messages,
    Option,
    OptionField,
    Panel,
    either,
    option_field,
    option_fields,
    unknown,
)

Settings = Mapping[str, Setting]
"""The options that are set, by name."""

Examples = Sequence[tuple[str, str]]
"""Command lines, each with a description, which may be empty."""

Given = NewType("Given", frozenset[str])
"""The names of the options that were given on the command line.

A function of a command can receive them by a parameter of this type.
"""

_CONFIG_HINT = Annotated[
    Path,
    Option(
        "read options from a YAML or TOML file; those on the command line take precedence",
        panel=Panel.OPTIONS_FILE,
        metavar="FILE",
    ),
]
CONFIG = cast("OptionField", option_field("config", _CONFIG_HINT, None))
"""The option for reading other options from a file."""

HELP_WIDTH = 80
"""Columns of a help page, even on wider terminals."""

_SETTINGS = {"help_option_names": ["-h", "--help"]}

HELP_ALL = "--help-all"
"""Prints the help page with the options for experts."""

FLAGS_WIDTH = 25
"""Columns for the flags and the value of an option, before its help text."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command's function: one option, or a dataclass of several."""

    name: str
    """Its name in the function."""
    fields: tuple[OptionField, ...]
    """Its options."""
    group: type[Any] | None = None
    """The dataclass of the options; None for a single option."""

    def value(self, given: dict[str, Any]) -> Any:
        """Return the value for the function; options that were not given keep their defaults."""
        values = {field.name: given[field.name] for field in self.fields if field.name in given}
        if self.group is not None:
            return self.group(**values)
        (field,) = self.fields
        value = values.get(field.name, field.default)
        field.check(value)
        return value


@dataclass(frozen=True)
class CommandPage:
    """The options and texts of a command, and its help page."""

    options: tuple[OptionField, ...]
    """Its options, in order."""
    summary: str
    """The first paragraph of its docstring."""
    details: str
    """The rest of its docstring."""
    examples: Examples
    """Examples for the top of the help."""

    def render(self, path: str, *, everything: bool = False) -> str:
        """Return the help page.

        Args:
            path: How the command is called, such as `av2tsam segment`.
            everything: Whether to list the options for experts.
        """
        blocks = [
            *([_examples(self.examples)] if self.examples else []),
            f"Usage: {self.usage(path)}",
            _wrap(self.summary),
            *([_wrap(self.details)] if self.details else []),
        ]
        for panel in Panel:
            rows = [_row(field) for field in self.options if field.option.panel is panel]
            if panel is Panel.MESSAGES:
                rows.append(("-h, --help", "print this help"))
                if any(field.option.panel.for_experts for field in self.options):
                    rows.append((HELP_ALL, "print this help with all options"))
            if rows and (everything or not panel.for_experts):
                blocks.append(f"{panel}:\n{_table(rows, FLAGS_WIDTH)}")
        return "\n\n".join(blocks) + "\n"

    def usage(self, path: str) -> str:
        """Return the command line with its required options."""
        words = [path]
        for field in self.options:
            if field.required:
                words.append(field.usage)
            elif field.option.positional:
                words.append(f"[{field.usage}]")
        return " ".join([*words, "[OPTIONS]"])


class HelpfulCommand(TyperCommand):
    """A Typer command with its own help page and error messages."""

    @property
    def page(self) -> CommandPage:
        """The page that `command` stored on the function."""
        return cast("CommandPage", self.callback.page)  # type: ignore[union-attr]

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option that prints the help page."""
        return _help_option(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        formatter.write(self.page.render(ctx.command_path))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments.

        Raises:
            UsageError: An option is unknown or missing, lacks a value or must not have one, or
                there are too many arguments.
        """
        name_flags({field.name: field.flag for field in self.page.options})
        if HELP_ALL in args:
            print_text(self.page.render(ctx.command_path, everything=True))
            ctx.exit()
        try:
            rest = super().parse_args(ctx, args)
        except typer.TyperException as error:
            raise UsageError(self._explain(error, ctx.command_path)) from error
        if ctx.args:
            raise UsageError(f"unexpected argument {ctx.args[0]!r}; {_see(ctx.command_path)}")
        ctx.obj = self._settings(ctx)
        for field in self.page.options:
            if field.required and field.name not in ctx.obj:
                raise UsageError(f"missing {field.usage}; {_see(ctx.command_path)}")
        return rest

    def invoke(self, ctx: Any) -> int:
        """Run the command."""
        return cast("int", self.callback.run(ctx.obj))  # type: ignore[union-attr]

    def _settings(self, ctx: Any) -> Settings:
        """Return all options that are set on the command line, in files or in the environment."""
        fields = [field for field in self.page.options if field is not CONFIG]
        settings = {
            name: Setting(word, "command line")
            for name, word in ctx.params.items()
            if word not in (None, (), [])
        }
        if config := ctx.params.get(CONFIG.name):
            values = read_options(Path(config), fields)
            settings = {name: Setting(value, config) for name, value in values.items()} | settings
        command = ctx.command_path.removeprefix("av2tsam ")
        return read_defaults(command, fields) | settings

    def _explain(self, error: typer.TyperException, path: str) -> str:
        """Return our message for a wrong option, to use instead of Typer's."""
        word = str(getattr(error, "option_name", ""))
        flags = {field.flag: field for field in self.page.options}
        flags |= {f.option.short: f for f in self.page.options if f.option.short}
        if word not in flags:
            known = [flag for flag in flags if flag.startswith("--")]
            return unknown("option", word, [*known, "--help", HELP_ALL], otherwise=_see(path))
        field = flags[word]
        if field.is_flag:
            return f"{word}: takes no value; {_see(path)}"
        return f"{word}: needs a value, {field.metavar}; {_see(path)}"


class HelpfulGroup(TyperGroup):
    """A Typer command with subcommands, its own help page and error messages."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option that prints the help page."""
        return _help_option(super().get_help_option(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help page."""
        path = ctx.command_path
        rows = [(name, _summary(command.help)) for name, command in self.commands.items()]
        width = max(len(name) for name, _ in rows) + 4
        formatter.write(
            f"Usage: {path} COMMAND ...\n\n{_wrap(self.help or '')}\n\n"
            f"Commands:\n{_table(rows, width)}\n\n"
            f"'{path} COMMAND --help' describes a command.\n"
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the subcommand.

        Raises:
            UsageError: It is missing or unknown.
        """
        names, path = list(self.commands), ctx.command_path
        args = ["--help" if word == HELP_ALL else word for word in args[:1]] + args[1:]
        if not args:
            raise UsageError(f"missing command; use {either(names)}")
        if args[0].startswith("-") and args[0] not in {"-h", "--help"}:
            raise UsageError(f"unknown option {args[0]!r}; {_see(path)}")
        if not args[0].startswith("-") and args[0] not in names:
            raise UsageError(unknown("command", args[0], names))
        return super().parse_args(ctx, args)


def new_app(help_text: str | None = None) -> typer.Typer:
    """Create a Typer app for one command, or for several that `help_text` introduces."""
    app = typer.Typer(
        cls=HelpfulGroup,
        help=help_text,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )
    if help_text is not None:
        app.callback()(lambda: None)  # or Typer would drop the name of a single subcommand
    return app


def command(
    app: typer.Typer, name: str | None = None, *, examples: Examples = (), config: bool = False
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add a function to an app as a command.

    Each parameter is an option (`Annotated[..., Option(...)]`, see `av2tsam_cli.options`), a
    dataclass of options, or `Given`. The docstring's first paragraph is the summary.

    Args:
        app: The app from `new_app`.
        name: The command's name; None for the function's name.
        examples: Examples for the top of the help page.
        config: Whether `--config` reads options from a file.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        parameters, given_name = _parameters(function)
        options = tuple(field for parameter in parameters for field in parameter.fields)
        options += (CONFIG,) if config else ()
        summary, _, details = inspect.getdoc(function).partition("\n\n")  # type: ignore[union-attr]

        def run(settings: Settings) -> int:
            if log_file := settings.get("log_file"):
                open_log(Path(str(log_file.value)))
            log_record("command", shlex.join(sys.argv))
            with _origins_in_errors(settings):
                given = {
                    f.name: _parsed(f, settings[f.name]) for f in options if f.name in settings
                }
                values = {parameter.name: parameter.value(given) for parameter in parameters}
                _report(options, settings, values)
                if given_name:
                    names = (name for name, each in settings.items() if not each.is_default)
                    values[given_name] = Given(frozenset(names))
                return function(**values)

        @wraps(function)
        def declared(**_: Any) -> None:
            """Typer only uses the signature; `HelpfulCommand.invoke` calls `run` instead."""

        signature = [_typer_parameter(field) for field in options]
        declared.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        declared.__annotations__ = {each.name: each.annotation for each in signature}
        declared.page = CommandPage(options, summary, details, examples)  # type: ignore[attr-defined]
        declared.run = run  # type: ignore[attr-defined]
        settings = _SETTINGS | {"allow_extra_args": True}  # so that the error is our own
        app.command(name, cls=HelpfulCommand, context_settings=settings)(declared)
        return function

    return decorate


def _report(options: Sequence[OptionField], settings: Settings, values: Mapping[str, Any]) -> None:
    """Print which defaults are not built in, and write all settings to the log file."""
    messages = next((each for each in values.values() if isinstance(each, Messages)), Messages())
    own = {field.name for field in option_fields(Messages)}
    flags: dict[str, list[str]] = {}
    for field in options:
        setting = settings.get(field.name)
        if setting is None and field.default_text:
            log_record("setting", f"{field.flag} {field.default_text} (default)")
        elif setting is not None:
            log_record("setting", f"{field.flag} {setting.value} ({setting.origin})")
            if setting.is_default and field.name not in own:
                flags.setdefault(setting.origin, []).append(field.flag)
    if flags:
        text = "; ".join(f"{', '.join(names)} from {origin}" for origin, names in flags.items())
        Console(messages).note(text)


@contextmanager
def _origins_in_errors(settings: Settings) -> Iterator[None]:
    """Add to usage errors the origins of the defaults that they name."""
    try:
        yield
    except UsageError as error:
        text = str(error)
        origins = [
            f"`{name}` is set by {each.origin}"
            for name, each in settings.items()
            if each.is_default and f"`{name}`" in text and each.origin not in text
        ]
        if origins:
            error.args = (f"{text} ({', '.join(origins)})",)
        raise


def _parameters(function: Callable[..., int]) -> tuple[list[Parameter], str | None]:
    """Return a function's parameters, and the name of a parameter of type `Given`, or None."""
    hints = get_type_hints(function, include_extras=True)
    parameters, given_name = [], None
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if hint is Given:
            given_name = name
        elif is_dataclass(hint):
            group = cast("type[Any]", hint)
            parameters.append(Parameter(name, tuple(option_fields(group)), group))
        else:
            required = parameter.default is inspect.Parameter.empty
            field = option_field(name, hint, MISSING if required else parameter.default)
            if field is None:
                raise TypeError(f"{function.__name__}: parameter {name} has no Option")
            parameters.append(Parameter(name, (field,)))
    return parameters, given_name


def _typer_parameter(field: OptionField) -> inspect.Parameter:
    """Declare an option to Typer as text, list or flag, with None as its default."""
    kind: Any = bool if field.is_flag else list[str] if field.is_list else str
    pair = f"{field.flag}/{field.negation}" if field.negation else field.flag
    flags = [pair, field.option.short] if field.option.short else [pair]
    info = typer.Argument() if field.option.positional else typer.Option(*flags)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, info],
    )


def _help_option(option: Any) -> Any:
    """Make the help option print with `print_text`, which reports if stdout cannot be written.

    Typer's own function would raise an error of the system, or ignore it.
    """

    def show(ctx: Any, _option: Any, given: bool) -> None:
        if given and not ctx.resilient_parsing:
            print_text(ctx.get_help() + "\n")
            ctx.exit()

    option.callback = show
    return option


def _see(path: str) -> str:
    return f"see '{path} --help'"


def _parsed(field: OptionField, setting: Setting) -> Any:
    word: Any = setting.value
    if field.is_flag:
        return word
    if field.is_list:
        return get_origin(field.type)(field.parse(each) for each in word)
    return field.parse(word)


def _examples(examples: Examples) -> str:
    width = max(len(line) for line, _ in examples)
    if width + max(len(what) for _, what in examples) + len("    # ") > HELP_WIDTH:
        width = 0  # not aligned, or they would not fit
    lines = [f"  {line:<{width}}  # {what}" if what else f"  {line}" for line, what in examples]
    return "Examples:\n" + "\n".join(lines)


def _row(field: OptionField) -> tuple[str, str]:
    """Return the two columns of an option in the help: its flags, and its description."""
    if field.option.positional:
        return field.metavar, field.help
    negation = "" if field.default is False else field.negation
    flags = ", ".join(filter(None, [field.option.short, field.flag, negation]))
    return f"{flags} {field.metavar}".rstrip(), field.help


def _table(rows: Iterable[tuple[str, str]], width: int) -> str:
    """Format two columns, the first `width` wide; longer names are put on a separate line."""
    lines = []
    for name, text in rows:
        parts = textwrap.wrap(text, HELP_WIDTH - width, break_on_hyphens=False) or [""]
        if len(name) + 3 > width:
            lines.append(f"  {name}")
        else:
            lines.append(f"  {name}".ljust(width) + parts.pop(0))
        lines += [" " * width + part for part in parts]
    return "\n".join(lines)


def _wrap(text: str) -> str:
    paragraphs = text.split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(each.split()), HELP_WIDTH) for each in paragraphs)


def _summary(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split()).rstrip(".")
