"""MkDocs hook: fill the command reference with the help text of every command."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PLACEHOLDER = "<!-- commands -->"
COMMANDS = re.compile(r"^Commands:\n((?:  .*\n)+)", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the placeholder with a section per command."""
    if PLACEHOLDER not in markdown:
        return markdown
    return markdown.replace(PLACEHOLDER, "\n".join(_sections()))


def _sections() -> list[str]:
    """Return the help of the program, of its commands and of their commands, as Markdown."""
    texts = {"": _help("")}
    level = _subcommands("", texts[""])
    while level:
        with ThreadPoolExecutor(2) as pool:
            texts.update(zip(level, pool.map(_help, level), strict=True))
        level = [below for name in level for below in _subcommands(name, texts[name])]
    return [
        f"## {' '.join(['av2tsam', *name.split()])}\n\n```text\n{texts[name].strip()}\n```\n"
        for name in sorted(texts, key=_order(list(texts)))
    ]


def _order(names: list[str]) -> Any:
    """Return a sort key that places subcommands right after their command."""
    top = [name for name in names if " " not in name]
    return lambda name: (top.index(name.split()[0]) if name else -1, names.index(name))


def _subcommands(name: str, text: str) -> list[str]:
    listed = COMMANDS.search(text)
    words = re.findall(r"^  (\w[\w-]*)  ", listed[1], re.MULTILINE) if listed else []
    return [f"{name} {word}".strip() for word in words]


def _help(name: str) -> str:
    command = [sys.executable, "-m", "av2tsam_cli", *name.split(), "--help-all"]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout
