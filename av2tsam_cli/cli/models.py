"""`av2tsam models`: which models are installed, and what they are."""

from json import JSONDecodeError, dumps, loads
from typing import Annotated

import typer

from av2tsam_cli.cli.console import print_json, print_text
from av2tsam_cli.cli.options import Debug, Json, new_app
from av2tsam_cli.errors import WeightsError

app = new_app("Show which models are installed, and what they are.")
Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A name, or a checkpoint's path.",
        show_default="the best that is installed",
    ),
]


@app.command("list")
def list_models(*, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show the models by name, and where their files are."""
    for name, path in installed().items():
        if json:
            print_json({"model": name, "installed": path is not None, "path": path})
        else:
            print_text(f"{name:<16} {path or 'not installed'}\n")
    return 0


@app.command()
def info(model: Name = None, *, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show what a model is: its configuration and what is known of its training."""
    from av2tsam_cli.model.checkpoint import read_metadata
    from av2tsam_cli.model.weights import resolve

    path = resolve(model)
    values = {key: _value(text) for key, text in sorted(read_metadata(path).items())}
    record = {"path": str(path), "bytes": path.stat().st_size, **values}
    if json:
        print_json(record)
    else:
        print_text("".join(f"{key}: {_shown(value)}\n" for key, value in record.items()))
    return 0


@app.command()
def path(model: Name = None, *, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show where a model's file is."""
    from av2tsam_cli.model.weights import resolve

    found = str(resolve(model))
    if json:
        print_json({"model": model, "path": found})
    else:
        print_text(found + "\n")
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


def _value(text: str) -> object:
    """Metadata is text; most of it is JSON."""
    try:
        return loads(text)
    except JSONDecodeError:
        return text


def _shown(value: object) -> str:
    return value if isinstance(value, str) else dumps(value)
