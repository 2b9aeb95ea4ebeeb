"""Read the entries of vocabulary files, each with its line number for error messages."""

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from av2tsam_cli.options import unknown

KINDS = ("source", "background")
"""The kinds of entries; in TOML, `[[source]]` and `[[background]]`."""

_HEADER = re.compile(r"\s*\[+\s*([\w.-]+)")
_KEY = re.compile(r"\s*([\w-]+)\s*=")
_POSITION = re.compile(r"^(.*) \(at (?:line (\d+), column \d+|end of document)\)$")
"""The position of an error in the messages of tomllib."""


@dataclass(frozen=True)
class Problem:
    """Something wrong in a vocabulary file."""

    line: int | None
    """Line number, from 1; None if it concerns the whole file."""
    text: str
    """What is wrong and how to fix it."""


@dataclass(frozen=True)
class Row:
    """An entry of a vocabulary file as it was written."""

    kind: str
    """`source` or `background`."""
    values: dict[str, Any]
    """Its unchecked keys and values."""
    line: int
    """The line on which it starts, from 1."""
    key_lines: dict[str, int] = field(default_factory=dict)
    """The lines of its keys, if they are on separate lines."""

    def line_of(self, key: str) -> int:
        """Return the line of a key, or of the entry if the key has no own line."""
        return self.key_lines.get(key, self.line)


def read_text(text: str) -> list[Row]:
    """Read a list of names, one per line: `dog`, or `dog = a dog barking; a dog growling`.

    Empty lines and everything after a `#` are skipped.
    """
    rows = []
    for line, content in enumerate(text.split("\n"), start=1):
        name, equals, phrases = content.partition("#")[0].partition("=")
        if name.strip() or equals:
            values: dict[str, Any] = {"name": name.strip()}
            if equals:
                values["sounds"] = [phrase.strip() for phrase in phrases.split(";")]
            rows.append(Row("source", values, line))
    return rows


def read_toml(text: str) -> tuple[list[Row], list[Problem]]:
    """Read the `[[source]]` and `[[background]]` entries of a TOML file, and their problems."""
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return [], [_syntax_problem(error, text)]
    lines = text.split("\n")
    rows, problems = [], []
    for key, entries in content.items():
        if key in KINDS and isinstance(entries, list) and all(isinstance(e, dict) for e in entries):
            starts = _starts(lines, key, len(entries))
            rows += [
                Row(key, entry, start, _key_lines(lines, start))
                for entry, start in zip(entries, starts, strict=True)
            ]
        else:
            problems.append(Problem(_line_of(lines, key), _misplaced(key)))
    return rows, problems


def _syntax_problem(error: Exception, text: str) -> Problem:
    match = _POSITION.match(str(error))
    what = match[1] if match else str(error)
    line = int(match[2]) if match and match[2] else len(text.rstrip().split("\n"))
    return Problem(line, f"not valid TOML ({what}); correct this line or the one before it")


def _misplaced(key: str) -> str:
    """Return the message for a key that is not a list of entries."""
    if key in KINDS:
        return f"not a list of entries; start each entry with [[{key}]], in double brackets"
    if key in {"name", "sounds", "looks", "synonyms", "all_instances"}:
        return f"{key!r} belongs to no entry; write [[source]] on a line above it"
    return unknown("entry", key, KINDS)


def _starts(lines: list[str], kind: str, entries: int) -> list[int]:
    """Return the line of each entry of a kind, or its first mention if entries have no headers."""
    headers = [
        number
        for number, line in enumerate(lines, start=1)
        if "[[" in line and (match := _HEADER.match(line)) and match[1] == kind
    ]
    return headers if len(headers) == entries else [_line_of(lines, kind)] * entries


def _key_lines(lines: list[str], start: int) -> dict[str, int]:
    """Return the lines of the keys from an entry's header to the next header."""
    found: dict[str, int] = {}
    for number, line in enumerate(lines[start:], start=start + 1):
        if _HEADER.match(line):
            break
        if match := _KEY.match(line):
            found.setdefault(match[1], number)
    return found


def _line_of(lines: list[str], word: str) -> int:
    """Return the first line that starts with a word, as a header or a key."""
    for number, line in enumerate(lines, start=1):
        match = _HEADER.match(line) or _KEY.match(line)
        if match and match[1].split(".")[0] == word:
            return number
    return 1
