"""`av2tsam models`: which models are installed, and what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence

from av2tsam_cli.cli.console import print_json, print_text
from av2tsam_cli.cli.options import Parser
from av2tsam_cli.errors import WeightsError

DESCRIPTION = """\
  list             the models by name, and where their files are
  info [MODEL]     what a model is: its configuration and what is known of its training
  path [MODEL]     where its file is

MODEL is a name or a checkpoint's path (default: the best that is installed).
"""


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = Parser("av2tsam models", description=DESCRIPTION)
    parser.add_argument("action", choices=("list", "info", "path"))
    parser.add_argument("model", nargs="?", metavar="MODEL")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout, a line each")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse(argv)
    actions = {"list": _list, "info": _info, "path": _path}
    actions[arguments.action](arguments.model, as_json=arguments.json)
    return 0


def installed() -> dict[str, str | None]:
    """Every name of the registry with the file that it stands for; None where it is not here."""
    from av2tsam_cli.model.weights import PACKAGED, SOURCES, resolve

    found: dict[str, str | None] = {}
    for name in (PACKAGED, *SOURCES):
        try:
            found[name] = str(resolve(name))
        except WeightsError:
            found[name] = None
    return found


def _list(_model: str | None, *, as_json: bool) -> None:
    for name, path in installed().items():
        if as_json:
            print_json({"model": name, "installed": path is not None, "path": path})
        else:
            print_text(f"{name:<12} {path or 'not installed'}\n")


def _info(model: str | None, *, as_json: bool) -> None:
    from av2tsam_cli.model.checkpoint import read_metadata
    from av2tsam_cli.model.weights import resolve

    path = resolve(model)
    values = {key: _value(text) for key, text in sorted(read_metadata(path).items())}
    record = {"path": str(path), "bytes": path.stat().st_size, **values}
    if as_json:
        print_json(record)
    else:
        print_text("".join(f"{key}: {_shown(value)}\n" for key, value in record.items()))


def _path(model: str | None, *, as_json: bool) -> None:
    from av2tsam_cli.model.weights import resolve

    path = str(resolve(model))
    if as_json:
        print_json({"model": model, "path": path})
    else:
        print_text(path + "\n")


def _value(text: str) -> object:
    """Metadata is text; most of it is JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
