"""How words become values, and the options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from av2tsam_cli.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` with one line and takes INPUTs on both sides of options."""

    def __init__(self, prog: str, **settings: str) -> None:
        super().__init__(
            prog=prog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,  # type: ignore[arg-type]
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the words of one command.

        Raises:
            UsageError: In one line, with where to look things up.
        """
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            raise UsageError(
                self.unknown("option", unknown[0], self._option_string_actions, self.prog)
            )
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print before it leaves the process."""
        raise UsageError(f"{message}; see: {self.prog} --help")

    @staticmethod
    def unknown(what: str, word: str, known: Iterable[str], prog: str) -> str:
        """Say that nothing has this name, and what does that looks like it."""
        from difflib import get_close_matches

        near = get_close_matches(word.partition("=")[0], list(known), n=1)
        hint = f"did you mean {near[0]}?" if near else f"see: {prog} --help"
        return f"unknown {what} {word}; {hint}"


def add_talk_options(parser: Parser) -> None:
    """What a command says, and how: --json, --quiet, --debug."""
    group = parser.add_argument_group("what it says")
    group.add_argument(
        "--json", action="store_true", help="print one JSON object per result on stdout"
    )
    group.add_argument(
        "--quiet", action="store_true", help="print nothing but errors: no notes, no progress bar"
    )
    group.add_argument(
        "--debug", action="store_true", help="show the traceback where something goes wrong"
    )


def add_model_options(parser: Parser) -> None:
    """Which network runs, and where: --model, --device."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--model",
        metavar="NAME|FILE",
        help="a model that 'av2tsam models list' shows, or a checkpoint "
        "(default: the best that is installed)",
    )
    group.add_argument(
        "--device", choices=DEVICES, default="auto", help="where it runs (default: auto)"
    )


def add_expert_model_options(group: argparse._ArgumentGroup) -> None:
    """How the network runs: --precision, --batch-size."""
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="numbers that the network runs in (default: auto, which is bf16 on GPUs that have "
        "it and fp32 elsewhere)",
    )
    group.add_argument(
        "--batch-size",
        type=whole_number,
        metavar="N",
        help="frames per run of the network; memory grows with it (default: what suits the "
        "device and the model)",
    )


def seconds(text: str) -> float:
    """Seconds, or [HH:]MM:SS, with decimals."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or any(part < 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text}: give seconds or [HH:]MM:SS, such as 90 or 1:30")
    total_s = 0.0
    for part in parts:
        total_s = total_s * 60 + part
    return total_s


def rate(text: str) -> Fraction:
    """A rate per second, exact: 25, 12.5 or 30000/1001."""
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0, such as 5 or 30000/1001")
    return value


def decibels(text: str) -> float | None:
    """A level in dBFS; `off` for None."""
    if text == "off":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: give a level such as -60, or off") from error


def probability(text: str) -> float:
    """A number between 0 and 1, both left out."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text}: give a number between 0 and 1, such as 0.5")
    return value


def whole_number(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def natural_number(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 0")
    return int(text)


def expand(words: Sequence[str]) -> tuple[Path, ...]:
    """The files that the words name, each once: patterns that no shell has expanded are expanded.

    A word that matches nothing stays as it is, so that opening it can say what is wrong.
    """
    from glob import glob

    paths: dict[Path, Path] = {}
    for word in words:
        matches = [] if Path(word).exists() else sorted(glob(word, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
        files = [Path(match) for match in matches if Path(match).is_file()]
        for path in files or [Path(word)]:
            paths.setdefault(path.resolve(), path)
    return tuple(paths.values())
