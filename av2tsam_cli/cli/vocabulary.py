"""`av2tsam vocabulary`: show and check the lists of things that can be heard and seen."""

from pathlib import Path
from typing import Annotated

from av2tsam_cli.cli.console import Console, escape, print_json, print_table, print_text
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.errors import MediaError
from av2tsam_cli.options import Messages, Option
from av2tsam_cli.words.vocabulary import Source, describe, load_vocabulary, read_vocabulary

Shown = Annotated[
    Path | None,
    Option(
        "a vocabulary file, .toml or one name per line",
        metavar="FILE",
        positional=True,
        default="the built-in vocabulary",
    ),
]
Checked = Annotated[
    Path,
    Option("a vocabulary file, .toml or one name per line", metavar="FILE", positional=True),
]

app = new_app("Show and check lists of things that can be heard and seen.")


@command(
    app,
    examples=[
        ("av2tsam vocabulary show", "the built-in vocabulary"),
        ("av2tsam vocabulary show mine.toml", "a vocabulary file, with all defaults"),
    ],
)
def show(file: Shown = None, *, messages: Messages) -> int:
    """List what can be named: how it sounds, what is looked for, and synonyms."""
    vocabulary = load_vocabulary(file)
    if messages.json:
        print_json({"file": file, **vocabulary.to_json()})
        return 0
    rows = [
        (source.name, "; ".join(source.sounds), _looks(source), ", ".join(source.synonyms))
        for source in vocabulary.sources
    ]
    rows += [
        (each.name, "; ".join(each.sounds), "(background)", "") for each in vocabulary.backgrounds
    ]
    print_table(("name", "sounds like", "look for", "synonyms"), rows)
    return 0


@command(app, examples=[("av2tsam vocabulary check mine.toml", "")])
def check(file: Checked, *, messages: Messages) -> int:
    """Check a vocabulary file and list everything that is wrong in it, with line numbers."""
    console = Console(messages)
    vocabulary, problems = read_vocabulary(file)
    sources, backgrounds = len(vocabulary.sources), len(vocabulary.backgrounds)
    for problem in problems:
        console.error(MediaError(describe(file, problem)))
    if messages.json:
        found = [{"line": problem.line, "problem": problem.text} for problem in problems]
        record = {"file": file, "sources": sources, "backgrounds": backgrounds}
        print_json({**record, "problems": found})
    elif not problems:
        counts = f"{sources} sources and {backgrounds} background sounds"
        print_text(f"{escape(str(file))}: {counts}; no problems\n")
    return MediaError.exit_code if problems else 0


def _looks(source: Source) -> str:
    return f"{source.looks} (all)" if source.all_instances else source.looks
