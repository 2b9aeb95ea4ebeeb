"""The vocabulary: things that can be heard and seen, with the words that describe them.

`load_vocabulary` reads the built-in vocabulary or a file; docs/vocabulary.md describes the format.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from av2tsam_cli.avsbench_format import AVSS_CLASSES, S4_CATEGORIES
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.files import read_text_file
from av2tsam_cli.options import either, unknown
from av2tsam_cli.words.rows import Problem, Row, read_text, read_toml

SHOWN_NAMES = 20
"""Maximum number of names that an error for an unknown name lists."""
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\[\]\x00-\x1f]|^\.')
"""Text that a name must not contain, because folders and files are named after it."""


@dataclass(frozen=True)
class Source:
    """Something that can be heard and seen."""

    name: str
    """The name that users see, such as "dog"; unique."""
    sounds: tuple[str, ...]
    """Phrases for how it sounds, such as "a dog barking"; one or more."""
    looks: str
    """What to look for in the frame, such as "dog"."""
    synonyms: tuple[str, ...] = ()
    """Other names for it."""
    all_instances: bool = False
    """Whether to mask all objects with this name, such as all sheep of a herd, instead of one."""
    avss: str = ""
    """Its class in AVSBench-semantic, such as "emergency-car"; "" if it has none."""
    s4: str = ""
    """Its category in AVSBench's single-source subset, such as "dog_barking"; "" if it has none."""


@dataclass(frozen=True)
class Background:
    """A sound that can be the best match, but is not a source in view."""

    name: str
    """Its name, such as "rain"; unique."""
    sounds: tuple[str, ...]
    """Phrases for how it sounds, such as "rain falling"; one or more."""


@dataclass(frozen=True)
class Vocabulary:
    """The sources that can be named, and the background sounds."""

    sources: tuple[Source, ...]
    """The sources, in the order of the file."""
    backgrounds: tuple[Background, ...]
    """The background sounds, in the order of the file."""

    def find(self, name: str) -> Source:
        """Return the source with a name or synonym; case, hyphens and underscores do not matter.

        Raises:
            UsageError: There is no such source.
        """
        wanted = _key(name)
        for source in self.sources:
            if wanted in map(_key, _names(source)):
                return source
        if wanted in {_key(background.name) for background in self.backgrounds}:
            raise UsageError(
                f"{name!r} is a background sound, which names nothing in view; choose a source, "
                "see 'av2tsam vocabulary show'"
            )
        known = [each for source in self.sources for each in _names(source)]
        few = [source.name for source in self.sources] if len(self.sources) <= SHOWN_NAMES else []
        hint = f"use {either(few)}" if few else "see 'av2tsam vocabulary show'"
        raise UsageError(unknown("name", name, known, otherwise=hint))

    def select(self, names: Iterable[str]) -> "Vocabulary":
        """Return a vocabulary with only the given sources, in the given order, and all backgrounds.

        Args:
            names: Names or synonyms; duplicates are ignored.

        Raises:
            UsageError: A name is unknown, or no names are given.
        """
        sources = tuple(dict.fromkeys(map(self.find, names)))
        if not sources:
            raise UsageError("no names are given; name at least one source")
        return Vocabulary(sources, self.backgrounds)

    def limit(self, names: Sequence[str]) -> "Vocabulary":
        """Return the vocabulary for a model that only supports a fixed list of names.

        Args:
            names: The names of the model, which are also its phrases.

        Raises:
            UsageError: The vocabulary has a source with another name.
        """
        for source in self.sources:
            if source.name not in names:
                raise UsageError(unknown("name", source.name, names))
        own = (replace(each, sounds=(each.name,), looks=each.name) for each in self.sources)
        return Vocabulary(tuple(own), ())

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return the sources and backgrounds as lists of plain dictionaries."""
        return {
            "sources": [asdict(source) for source in self.sources],
            "backgrounds": [asdict(background) for background in self.backgrounds],
        }


def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """Load a vocabulary.

    Args:
        path: A TOML file, or a text file with one name per line; None for the built-in vocabulary.

    Raises:
        UsageError: The file does not exist.
        MediaError: The file is not a valid vocabulary; the message contains the line number.
    """
    if path is None:
        return _builtin()
    vocabulary, problems = read_vocabulary(path)
    if problems:
        more = f" ({len(problems) - 1} more: av2tsam vocabulary check {path})" * (len(problems) > 1)
        raise MediaError(describe(path, problems[0]) + more)
    return vocabulary


def choose_vocabulary(
    path: Path | None, names: Iterable[str] = (), *, fixed: Sequence[str] = ()
) -> Vocabulary:
    """Return the vocabulary to use with a model.

    Args:
        path: See `load_vocabulary`.
        names: Use only the sources with these names or synonyms; empty for all.
        fixed: The only names that the model supports; empty if it supports any phrase.

    Raises:
        UsageError: A name is unknown, or see `load_vocabulary`.
        MediaError: See `load_vocabulary`.
    """
    vocabulary = load_vocabulary(path)
    if fixed and path is None:
        vocabulary = Vocabulary(tuple(_renamed(vocabulary.find(name), name) for name in fixed), ())
    chosen = tuple(names)
    vocabulary = vocabulary.select(chosen) if chosen else vocabulary
    return vocabulary.limit(fixed) if fixed else vocabulary


def _renamed(source: Source, name: str) -> Source:
    """Return a source with one of its synonyms as its name, and its other names as synonyms."""
    others = tuple(each for each in _names(source) if _key(each) != _key(name))
    return replace(source, name=name, synonyms=others)


def read_vocabulary(path: Path) -> tuple[Vocabulary, list[Problem]]:
    """Read a vocabulary file; return the valid entries, and all problems in order of lines.

    Raises:
        UsageError: The file does not exist.
        MediaError: The file cannot be read.
    """
    try:
        text = read_text_file(path).decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError as error:
        raise UsageError(f"{path}: file not found; check the path") from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return Vocabulary((), ()), [Problem(line, "not UTF-8; save the file as UTF-8")]
    return _parse(text, toml=path.suffix.lower() == ".toml", known=_builtin())


def describe(path: Path, problem: Problem) -> str:
    """Return the message for a problem: file, line, what is wrong and how to fix it."""
    where = f"{path}, line {problem.line}" if problem.line else f"{path}"
    return f"{where}: {problem.text}"


@cache
def _builtin() -> Vocabulary:
    """Load the built-in vocabulary."""
    file = resources.files("av2tsam_cli.words") / "vocabulary.toml"
    vocabulary, problems = _parse(file.read_text("utf-8"), toml=True, known=Vocabulary((), ()))
    if problems:
        raise MediaError(describe(Path(str(file)), problems[0]))
    return vocabulary


def _parse(text: str, *, toml: bool, known: Vocabulary) -> tuple[Vocabulary, list[Problem]]:
    """Parse a vocabulary file; missing values of its entries come from a known vocabulary."""
    rows, problems = read_toml(text) if toml else (read_text(text), [])
    entries: list[Source | Background] = []
    taken: _Taken = {}
    for row in rows:
        entry = None
        wrong = list(_wrong_values(row))
        if not wrong:
            entry = _make(row, known)
            wrong = _clashes(row, entry, taken)
        problems += wrong
        if entry is not None and not wrong:
            entries.append(entry)
    sources = tuple(entry for entry in entries if isinstance(entry, Source))
    backgrounds = tuple(entry for entry in entries if isinstance(entry, Background))
    if not (sources or problems):
        example = "an entry that starts with [[source]]" if toml else "names, one per line"
        problems.append(Problem(None, f"contains no source; add {example}"))
    if not backgrounds:
        backgrounds = tuple(b for b in known.backgrounds if not taken.keys() & _unique(b).keys())
    problems.sort(key=lambda problem: problem.line or 0)
    return Vocabulary(sources, backgrounds), problems


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_CLASSES: dict[str, type[Source] | type[Background]] = {"source": Source, "background": Background}
_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (_is_text, 'a text such as "dog"'),
    "sounds": (lambda v: _is_texts(v) and bool(v), 'a list of phrases such as ["a dog barking"]'),
    "looks": (_is_text, 'a text such as "dog"'),
    "synonyms": (_is_texts, 'a list of names such as ["puppy"]'),
    "all_instances": (lambda v: isinstance(v, bool), "true or false"),
    "avss": (_is_text, 'a text such as "dog"'),
    "s4": (_is_text, 'a text such as "dog_barking"'),
}
"""For each key of an entry, a test of its value, and a description of valid values."""
_CHOICES = {
    "avss": (AVSS_CLASSES[1:], "use one of the 70 object classes of AVSBench-semantic"),
    "s4": (S4_CATEGORIES, "use one of the 23 categories of AVSBench's single-source subset"),
}
"""For keys with a fixed set of values, these values, and advice for other values."""


def _wrong_values(row: Row) -> Iterator[Problem]:
    """Find the problems of a row, regardless of other rows."""
    keys = list(get_type_hints(_CLASSES[row.kind]))
    if "name" not in row.values:
        yield Problem(row.line, 'the entry has no name; add for example name = "dog"')
    for key, value in row.values.items():
        text = _wrong_value(key, value, keys)
        if text:
            yield Problem(row.line_of(key), text)


def _wrong_value(key: str, value: Any, keys: list[str]) -> str:
    """Return the problem with one key of an entry; "" if there is none."""
    if key not in keys:
        return unknown("key", key, keys)
    fits, shape = _SHAPES[key]
    if not fits(value):
        return f"{key!r} must be {shape}"
    if key in _CHOICES and value not in _CHOICES[key][0]:
        return unknown(f"{key} value", value, *_CHOICES[key])
    if key == "name" and (bad := _FORBIDDEN.search(value.strip())):
        hint = "; a TOML file needs the ending .toml" if bad[0] == "[" else ""
        return f"the name {value!r} contains {bad[0]!r}; use letters, digits and spaces{hint}"
    return ""


def _make(row: Row, known: Vocabulary) -> Source | Background:
    """Create an entry; missing values come from the known entry with its name."""
    values = {key: _clean(value) for key, value in row.values.items()}
    kind = _CLASSES[row.kind]
    entries = known.sources if kind is Source else known.backgrounds
    same = [entry for entry in entries if _key(values["name"]) in map(_key, _names(entry))]
    defaults: dict[str, Any] = {"sounds": (values["name"],)}
    if same:
        defaults = {k: v for k, v in vars(same[0]).items() if k not in {"name", "synonyms"}}
    elif kind is Source:
        defaults["looks"] = values["name"]
    return kind(**(defaults | values))


_Taken = dict[tuple[str, str], Row]
"""The rows of values that must be unique, by kind (name, phrase or S4 category) and value."""


def _clashes(row: Row, entry: Source | Background, taken: _Taken) -> list[Problem]:
    """Find values that other entries have too, and add the values of this entry to `taken`.

    At most one problem per other entry is returned.
    """
    problems: dict[int, Problem] = {}
    for what, (key, shown) in _unique(entry).items():
        other = taken.setdefault(what, row)
        if other is not row:
            user = f"{other.values['name']!r} (line {other.line})"
            text = f"{shown!r} is already used by {user}; keep it in one of the two"
            problems.setdefault(id(other), Problem(row.line_of(key), text))
    return list(problems.values())


def _unique(entry: Source | Background) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the values of an entry that must be unique, as keys of `_Taken`, with key and text."""
    found = {("phrase", _key(phrase)): ("sounds", phrase) for phrase in entry.sounds}
    if isinstance(entry, Source):
        found |= {("name", _key(name)): ("synonyms", name) for name in entry.synonyms}
        if entry.s4:
            found["s4", entry.s4] = ("s4", entry.s4)
    return {("name", _key(entry.name)): ("name", entry.name)} | found


def _names(entry: Source | Background) -> tuple[str, ...]:
    return (entry.name, *entry.synonyms) if isinstance(entry, Source) else (entry.name,)


def _key(name: str) -> str:
    """Return a name for comparisons: without case, hyphens, underscores and repeated spaces."""
    return " ".join(re.sub(r"[-_]", " ", name).casefold().split())


def _clean(value: Any) -> Any:
    """Return a checked value without superfluous spaces, and lists as tuples."""
    if isinstance(value, list):
        return tuple(" ".join(text.split()) for text in value)
    return " ".join(value.split()) if isinstance(value, str) else value
