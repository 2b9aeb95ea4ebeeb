"""`av2tsam completion`: print a script that completes commands and options in a shell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from av2tsam_cli.cli.app import COMMANDS, command_options
from av2tsam_cli.cli.console import print_text
from av2tsam_cli.cli.options import HELP_ALL, command, new_app
from av2tsam_cli.hub.registry import MODELS
from av2tsam_cli.options import Option, OptionField

Shell = Literal["bash", "zsh", "fish"]

FILE_METAVARS = {"FILE", "DIR", "PATH", "INPUT", "RUN"}
"""Placeholders that stand for files or folders."""
HELP_FLAGS = ("--help", HELP_ALL)

app = new_app()


@command(
    app,
    examples=[
        ('eval "$(av2tsam completion bash)"', "in ~/.bashrc"),
        ('eval "$(av2tsam completion zsh)"', "in ~/.zshrc, after compinit"),
        ("av2tsam completion fish | source", "in ~/.config/fish/config.fish"),
    ],
)
def completion(
    shell: Annotated[Shell, Option("the shell", metavar="SHELL", positional=True)],
) -> int:
    """Print a script that completes commands, options, their values, and file names in a shell."""
    write = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    print_text("\n".join(write(command_options())) + "\n")
    return 0


@dataclass(frozen=True)
class _Value:
    """The completions for the value of an option."""

    words: tuple[str, ...]
    """Words to offer."""
    files: bool
    """Whether to offer file names."""


def _value(name: str, field: OptionField) -> _Value:
    """Return the completions for the value of an option of a command."""
    parts = field.metavar.split("|")
    words = field.choices or tuple(part for part in parts if part.islower())
    if field.name == "model" or (name.startswith("models ") and field.option.positional):
        words = tuple(MODELS)
    if name == "config show" and field.option.positional:
        words = tuple(dict.fromkeys(word for each in command_options() for word in each.split()))
    return _Value(words, files=field.type is Path or not FILE_METAVARS.isdisjoint(parts))


def _flags(field: OptionField) -> list[str]:
    """Return the ways to write an option, as its help lists them."""
    negation = "" if field.default is False else field.negation
    return [flag for flag in (field.option.short, field.flag, negation) if flag]


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the subcommands of each command that has some."""
    groups: dict[str, list[str]] = {}
    for first, _, second in (name.partition(" ") for name in names):
        if second:
            groups.setdefault(first, []).append(second)
    return groups


_BASH_START = """\
_av2tsam() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local name=${COMP_WORDS[1]} flags= words= files= line
    if [[ $cur == = ]]; then  # --option=
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi"""
_BASH_END = """\
    [[ -n $flags && $cur == -* ]] && words=$flags files=
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -W "$words" -- "$cur")
    if [[ -n $files ]]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur")
    fi
}
complete -F _av2tsam av2tsam"""


def _bash(commands: Mapping[str, Sequence[OptionField]]) -> Iterator[str]:
    groups = _groups(list(commands))
    yield _BASH_START
    yield f'    case $name in {"|".join(groups)}) name+=" ${{COMP_WORDS[2]}}" ;; esac'
    yield "    COMPREPLY=()"
    yield "    case $COMP_CWORD,$name in"
    yield f"        1,*) words={quote(' '.join([*COMMANDS, '--help', '--version']))} ;;"
    for group, names in groups.items():
        yield f"        2,{group}\\ *) words={quote(' '.join([*names, '--help']))} ;;"
    for name, fields in commands.items():
        yield f"        *,{quote(name)})"
        flags = [flag for each in fields if not each.option.positional for flag in _flags(each)]
        yield f"            flags={quote(' '.join([*flags, *HELP_FLAGS]))}"
        positional = [each for each in fields if each.option.positional]
        yield from (f"            {_bash_value(name, each)}" for each in positional)
        yield "            case $prev in"
        for field in fields:
            if not field.option.positional and not field.is_flag:
                value = _bash_value(name, field)
                yield f"                {'|'.join(_flags(field))}) flags= {value} ;;"
        yield "            esac ;;"
    yield "    esac"
    yield _BASH_END


def _bash_value(name: str, field: OptionField) -> str:
    value = _value(name, field)
    return f"words={quote(' '.join(value.words))} files={'1' if value.files else ''}"


def _zsh(commands: Mapping[str, Sequence[OptionField]]) -> Iterator[str]:
    groups = _groups(list(commands))
    yield "#compdef av2tsam"
    yield "_av2tsam() {"
    yield "    local name=$words[2]"
    yield "    if (( CURRENT == 2 )); then"
    rows = " ".join(quote(f"{name}:{text}") for name, text in COMMANDS.items())
    yield f"        local -a names=({rows})"
    yield "        _describe command names"
    yield "        return"
    yield "    fi"
    yield "    case $name in"
    for group, names in groups.items():
        yield f"        {group})"
        yield f"            if (( CURRENT == 3 )); then compadd {' '.join(names)}; return; fi"
        yield '            name+=" $words[3]"'
        yield "            shift words; (( CURRENT-- )) ;;"
    yield "    esac"
    yield "    shift words; (( CURRENT-- ))"
    yield "    case $name in"
    for name, fields in commands.items():
        yield f"        {quote(name)})"
        yield "            _arguments -s \\"
        for field in fields:
            yield from (f"                {spec} \\" for spec in _zsh_specs(name, field))
        yield f"                '(-h --help)'{{-h,--help}}'[print the help]' {HELP_ALL} ;;"
    yield "    esac"
    yield "}"
    yield "if [[ $funcstack[1] == _av2tsam ]]; then"
    yield '    _av2tsam "$@"  # it is a file in fpath'
    yield "else"
    yield "    compdef _av2tsam av2tsam"
    yield "fi"


def _zsh_specs(name: str, field: OptionField) -> Iterator[str]:
    value = _value(name, field)
    action = f"({' '.join(value.words)})" if value.words else " "
    if value.files:
        action = f"{{compadd -- {' '.join(value.words)}; _files}}" if value.words else "_files"
    ending = f":{field.metavar}:{action}"
    if field.option.positional:
        yield quote(f"{'*' if field.is_list else ''}{ending}")
        return
    help_text = "".join(f"\\{char}" if char in "[]:\\" else char for char in field.option.help)
    repeatable = "*" if field.is_list else ""
    for flag in _flags(field):
        yield quote(f"{repeatable}{flag}[{help_text}]{'' if field.is_flag else ending}")


def _fish(commands: Mapping[str, Sequence[OptionField]]) -> Iterator[str]:
    groups = _groups(list(commands))
    seen = "__fish_seen_subcommand_from"
    yield "complete -c av2tsam -f"
    for name, text in COMMANDS.items():
        yield f"complete -c av2tsam -n __fish_use_subcommand -a {name} -d {_fish_quote(text)}"
    for group, names in groups.items():
        words = " ".join(names)
        yield (
            f"complete -c av2tsam -n '{seen} {group}; and not {seen} {words}' "
            f"-a {_fish_quote(words)}"
        )
    for name, fields in commands.items():
        condition = "; and ".join(f"{seen} {word}" for word in name.split())
        for field in fields:
            for words in _fish_options(name, field):
                yield f"complete -c av2tsam -n '{condition}' {words}"


def _fish_options(name: str, field: OptionField) -> Iterator[str]:
    value = _value(name, field)
    offered = f" -a {_fish_quote(' '.join(value.words))}" if value.words else ""
    if field.option.positional:
        if offered or value.files:
            yield f"{'-F' if value.files else ''}{offered}".strip()
        return
    kind = "" if field.is_flag else " -r -F" if value.files else " -x"
    text = f" -d {_fish_quote(field.option.help)}"
    short = f" -s {field.option.short[1:]}" if field.option.short else ""
    yield f"-l {field.flag[2:]}{short}{kind}{offered}{text}"
    if field.is_flag and field.default is not False:
        yield f"-l {field.negation[2:]}{text}"


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
