"""Command options, each defined once: a dataclass field with its type, default and help text.

A field is a keyword argument in Python and an option on the command line. `Option` adds what only
the command line needs; fields without an `Option` are not on the command line. An example:

    @dataclass(frozen=True)
    class CutOptions:
        length: Annotated[float, Option("length of a piece in seconds", metavar="S")] = 10.0
        subset: SubsetOption = "s4"  # one of the shared options defined below

        def __post_init__(self) -> None:
            check_values(self)  # choices and minimums
            if self.length <= 0:
                raise UsageError(f"`length` must be above 0, not {self.length:g}")

    @command(app, examples=[("av2tsam cut a.mp4 --length 5", "pieces of 5 seconds")])
    def cut(video: Annotated[Path, Option("the video", positional=True)], *, options: CutOptions,
            messages: Messages) -> int:
        ...

`command` (in `av2tsam_cli.cli.options`) turns each field into an option: `batch_size` becomes
`--batch-size`. Values are checked in `__post_init__` only. Error messages name the argument in
backticks, which the command line replaces with the flag: `` `length` `` becomes `--length`.
"""

import types
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from av2tsam_cli.avsbench_format import Subset
from av2tsam_cli.errors import UsageError


class Panel(StrEnum):
    """The headings of a command's help, in the order in which they are shown.

    Panels after MESSAGES are for experts: only `--help-all` shows them.
    """

    ARGUMENTS = "Arguments"
    OPTIONS_FILE = "Options from a file"
    OUTPUT = "Output"
    RANGE = "Input range"
    DATA = "Data"
    SCORING = "Scoring"
    NAMES = "Names"
    MODEL = "Model"
    TRAINING = "Training"
    MESSAGES = "Messages"
    INPUTS = "Many inputs"
    LOOK = "Look of overlays, mattes and cutouts"
    ENCODING = "Encoding"
    ADVANCED = "Advanced"
    CLUSTER = "Many GPUs and machines"
    LOGGING = "Progress and logging"

    @property
    def for_experts(self) -> bool:
        """Whether only `--help-all` shows it."""
        panels = list(Panel)
        return panels.index(self) > panels.index(Panel.MESSAGES)


@dataclass(frozen=True)
class Option:
    """How a field appears on the command line, in addition to its name, type and default."""

    help: str
    """One or two phrases, without a full stop at the end."""
    panel: Panel = Panel.ARGUMENTS
    """The heading under which the help lists it."""
    metavar: str = ""
    """The placeholder of the value in the help; "" for the field's name in capitals."""
    short: str = ""
    """A short flag, such as `-o`."""
    parse: Callable[[str], Any] | None = None
    """Converts the text and raises ValueError with a readable message. None for int, float, str,
    Path, Fraction, bool and choices, which need no parser."""
    default: str | None = None
    """The default in words, such as "every frame"; None for the field's, "" to show none."""
    minimum: int | None = None
    """The smallest allowed value, checked by `check_values`."""
    positional: bool = False
    """Whether it is a positional argument, without a flag."""


@dataclass(frozen=True)
class OptionField:
    """A dataclass field or a function parameter that has an `Option`; see `option_field`."""

    name: str
    """Its name in Python."""
    type: Any
    """Its type, without `Annotated` and without `None`."""
    option: Option
    """How it appears on the command line."""
    default: Any
    """Its default; MISSING if it is required."""
    flag: str
    """Its name on the command line: `--batch-size`, or `INPUT` for a positional argument."""
    negation: str
    """The flag that switches it off, such as `--no-adapter`; "" if it takes a value."""
    metavar: str
    """The placeholder of the value in the help; "" for a flag."""
    choices: tuple[str, ...]
    """The allowed values, for a type that lists them."""
    required: bool
    """Whether it must be given."""
    is_flag: bool
    """Whether it takes no value."""
    is_list: bool
    """Whether it takes several values: a list of positional arguments, or a repeatable option."""

    @property
    def usage(self) -> str:
        """How to give it: `--out PATH`, or `INPUT...` for a list of positional arguments."""
        if self.option.positional:
            return f"{self.metavar}..." if self.is_list else self.metavar
        return f"{self.flag} {self.metavar}".rstrip()

    @property
    def help(self) -> str:
        """The help text with the choices and the default."""
        notes = [", ".join(self.choices)] if self.choices else []
        if self.is_list and not self.option.positional:
            notes.append("repeatable")
        if self.default_text:
            notes.append(f"default: {self.default_text}")
        return f"{self.option.help} ({'; '.join(notes)})" if notes else self.option.help

    @property
    def default_text(self) -> str:
        """The built-in default as shown in the help; "" to show none."""
        if self.option.default is not None:
            return self.option.default
        if self.default is None or self.default is False or self.default in (MISSING, (), []):
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def check(self, value: Any) -> None:
        """Check that a value is one of the choices and not below the minimum.

        Raises:
            UsageError: The value is not allowed.
        """
        minimum = self.option.minimum
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise UsageError(unknown(self.name.replace("_", " "), str(value), self.choices))
        if minimum is not None and value < minimum:
            raise UsageError(f"`{self.name}` must be {minimum} or more, not {value}")

    def parse(self, text: str) -> Any:
        """Convert a value from the command line.

        Raises:
            UsageError: The text is not a valid value.
        """
        parse = self.option.parse or _PARSERS.get(self.type, str)
        try:
            return parse(text)
        except ValueError as error:
            raise UsageError(f"`{self.name}`: {error}") from error


def option_fields(options: type[Any]) -> list[OptionField]:
    """Return the fields of a dataclass that have an `Option`, in order."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for field in fields(options):
        factory = field.default_factory
        default = field.default if factory is MISSING else factory()
        found.append(option_field(field.name, hints[field.name], default))
    return [field for field in found if field is not None]


def option_field(name: str, hint: Any, default: Any = MISSING) -> OptionField | None:
    """Return the option for a type hint, or None if the hint contains no `Option`."""
    hint = _without_none(hint)  # a shared option can be optional here
    if get_origin(hint) is not Annotated:
        return None
    annotated, *extras = get_args(hint)
    option = next((extra for extra in extras if isinstance(extra, Option)), None)
    if option is None:
        return None
    kind = _without_none(annotated)
    is_flag = kind is bool
    metavar = "" if is_flag else option.metavar or name.upper()
    long_name = name.replace("_", "-")
    return OptionField(
        name=name,
        type=kind,
        option=option,
        default=default,
        flag=metavar if option.positional else f"--{long_name}",
        negation=f"--no-{long_name}" if is_flag else "",
        metavar=metavar,
        choices=get_args(kind) if get_origin(kind) is Literal else (),
        required=default is MISSING,
        is_flag=is_flag,
        # A tuple of a fixed length, such as three sizes, or with a parser is one value.
        is_list=get_origin(kind) is list
        or (get_args(kind)[1:] == (Ellipsis,) and option.parse is None),
    )


def check_values(options: Any) -> None:
    """Check the choices and minimums of all options in a dataclass.

    Raises:
        UsageError: A value is not one of its choices, or below its minimum.
    """
    for field in option_fields(type(options)):
        field.check(getattr(options, field.name))


def unknown(kind: str, word: str, known: Sequence[str], otherwise: str = "") -> str:
    """Return the message for an unknown word, with the most similar known word if there is one.

    Args:
        kind: What the word should name, such as "format".
        word: The unknown word.
        known: The known words.
        otherwise: The advice if no known word is similar; "" to list the known words.
    """
    near = get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else otherwise or f"use {either(known)}"
    return f"unknown {kind} {word!r}; {hint}"


def either(words: Sequence[str]) -> str:
    """Join words, as in `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def parse_seconds(text: str) -> float:
    """Convert a time, in seconds or as [HH:]MM:SS, to seconds; decimals are allowed."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or (len(parts) > 1 and min(parts) < 0):
        raise ValueError(f"{text!r} is not a time; use seconds or [HH:]MM:SS, such as 90 or 1:30")
    total_s = 0.0
    for part in parts:
        total_s = total_s * 60 + part
    return total_s


def parse_or_off(text: str) -> float | None:
    """Convert a number; `off` becomes None."""
    return None if text == "off" else _parse_float(text, "a number or 'off'")


def _parse_float(text: str, kind: str = "a number") -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not {kind}") from None


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _parse_fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is not a number; use for example 5 or 30000/1001") from None


_PARSERS: dict[Any, Callable[[str], Any]] = {
    int: _parse_int,
    float: _parse_float,
    Fraction: _parse_fraction,
    Path: Path,
}


def _without_none(kind: Any) -> Any:
    """Return `X` for `X | None`."""
    if get_origin(kind) not in {Union, types.UnionType}:
        return kind
    return next(each for each in get_args(kind) if each is not types.NoneType)


# Options that several commands share.

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    Option("where to run the model", panel=Panel.MODEL, default=""),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    Option(
        "numeric precision; auto uses bf16 where it is fast, else fp32",
        panel=Panel.ADVANCED,
        default="",
    ),
]
BatchSize = Annotated[
    int | None,
    Option(
        "frames per forward pass; more need more memory",
        panel=Panel.ADVANCED,
        metavar="N",
        default="depends on the device and the model",
        minimum=1,
    ),
]
Devices = Annotated[
    int,
    Option(
        "number of processes, each on its own device; torchrun's setting takes precedence",
        panel=Panel.MODEL,
        metavar="N",
        minimum=1,
    ),
]
AllowPartial = Annotated[
    bool,
    Option("use the readable part of a truncated or damaged input", panel=Panel.ADVANCED),
]
AllowUrl = Annotated[
    bool,
    Option("open web URLs directly, and the files in playlists", panel=Panel.ADVANCED),
]
Overwrite = Annotated[bool, Option("replace existing outputs", panel=Panel.OUTPUT)]
Data = Annotated[
    str,
    Option(
        "AVSBench, or a folder with the same layout, as from 'av2tsam data synth'",
        panel=Panel.DATA,
        metavar="avsbench|DIR",
    ),
]
DataRoot = Annotated[
    Path | None,
    Option(
        "folder that contains AVSBench",
        panel=Panel.DATA,
        metavar="DIR",
        default="$AVSBENCH_ROOT, else ./avsbench_data",
    ),
]
SubsetOption = Annotated[
    Subset,
    Option("single source, multiple sources, or AVSBench-semantic", panel=Panel.DATA),
]
SkipBad = Annotated[
    bool,
    Option("skip damaged videos and list them, instead of stopping", panel=Panel.DATA),
]
Strict = Annotated[
    bool,
    Option(
        "stop if frames or WAV files are missing, instead of using raw_videos, or if a video is "
        "listed twice",
        panel=Panel.DATA,
    ),
]
Cache = Annotated[
    Path | None,
    Option(
        "folder for CLIP and CLAP embeddings, which are computed once per model and video",
        panel=Panel.DATA,
        metavar="DIR",
        default="next to the installed models",
    ),
]
Json = Annotated[bool, Option("print one JSON object per result on stdout", panel=Panel.MESSAGES)]
Quiet = Annotated[
    bool,
    Option(
        "print only results and errors, no notes or progress bar",
        panel=Panel.MESSAGES,
        short="-q",
    ),
]
Verbose = Annotated[
    bool,
    Option(
        "print more notes: model, device, codec, times",
        panel=Panel.MESSAGES,
        short="-v",
    ),
]
ProgressStyle = Literal["bar", "lines", "json", "none"]
Progress = Annotated[
    ProgressStyle | None,
    Option(
        "how to show progress on stderr: json prints an object per update",
        panel=Panel.LOGGING,
        default="bar on a terminal, else lines; none with --quiet",
    ),
]
LogFile = Annotated[
    Path | None,
    Option(
        "append notes, errors with tracebacks, and settings to a file",
        panel=Panel.LOGGING,
        metavar="FILE",
    ),
]
Debug = Annotated[bool, Option("print a traceback with every error", panel=Panel.MESSAGES)]


@dataclass(frozen=True)
class ModelOptions:
    """Which model to load, and how to run it."""

    model: Annotated[
        str | None,
        Option(
            "a model from 'av2tsam models list', or a checkpoint file",
            panel=Panel.MODEL,
            metavar="NAME|FILE",
            short="-m",
            default="the best one installed",
        ),
    ] = None
    """Name of a model or path of a checkpoint; None for the best one installed."""
    device: Device = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    precision: Precision = "auto"
    """`auto`, `fp32`, `bf16` or `fp16`."""

    def __post_init__(self) -> None:
        check_values(self)


@dataclass(frozen=True)
class VocabularyOptions:
    """Which sound sources can be named."""

    vocabulary: Annotated[
        Path | None,
        Option(
            "names to choose from (see 'av2tsam vocabulary')",
            panel=Panel.NAMES,
            metavar="FILE",
            default="",
        ),
    ] = None
    """A vocabulary file, see docs/vocabulary.md; None for the built-in vocabulary."""
    name: Annotated[
        tuple[str, ...],
        Option("use only this name, such as dog", panel=Panel.NAMES, metavar="NAME"),
    ] = ()
    """Names or synonyms in the vocabulary to use; empty for all of its sources."""


@dataclass(frozen=True)
class Messages:
    """What a command prints."""

    json: Json = False
    """Whether results are printed as JSON, one object per line."""
    quiet: Quiet = False
    """Whether notes and progress bars are left out."""
    verbose: Verbose = False
    """Whether details are printed too."""
    progress: Progress = None
    """How progress is shown; None for a bar, lines without a terminal, or nothing if `quiet`."""
    log_file: LogFile = None
    """File to append notes, errors and settings to; None for no file."""
    debug: Debug = False
    """Whether errors are printed with their traceback."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: A value is unknown, or two options conflict.
        """
        check_values(self)
        if self.quiet and self.verbose:
            raise UsageError("`quiet` and `verbose` exclude each other; pass one of them")

    @property
    def silent(self) -> "Messages":
        """The messages of a process whose results are reported by another process."""
        return Messages(quiet=True, debug=self.debug)

    @property
    def progress_style(self) -> ProgressStyle:
        """How progress is shown."""
        return self.progress or ("none" if self.quiet else "bar")
