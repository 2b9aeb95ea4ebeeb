"""`av2tsam models`: fetch, convert, check, show and remove models."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from difflib import get_close_matches
from json import JSONDecodeError, dumps, loads
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from av2tsam_cli.cli.console import Console, print_json, print_table, print_text
from av2tsam_cli.cli.options import Debug, Json, Overwrite, Quiet, new_app
from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.hub import installed as installed_models
from av2tsam_cli.hub.locate import (
    find_model,
    find_tokenizer,
    installed_path,
    part_name,
    resolve,
)
from av2tsam_cli.hub.registry import (
    BUNDLED_MODEL,
    MODELS,
    TOKENIZER,
    NamedModel,
    format_bytes,
)
from av2tsam_cli.hub.tensor_file import TensorFile, read_metadata

if TYPE_CHECKING:
    from av2tsam_cli.hub.download import RemoteFile
    from av2tsam_cli.model.config import ModelConfig

app = new_app("Fetch, convert, check, show and remove models.")

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A name, or a checkpoint's path.",
        show_default="the best that is installed",
    ),
]
Named = Annotated[str, typer.Argument(metavar="NAME", help="What 'av2tsam models list' shows.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Projector = Annotated[
    Literal["mul", "clap", "clip"],
    typer.Option(
        help="What the authors' network was trained on: the product of sound and sight, or one of "
        "them alone. Their weights do not tell.",
    ),
]


@app.command("list")
def list_models(*, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show the models by name: what for, size, licence, whether installed, what was measured."""
    records = [_summary(model) for model in MODELS.values()]
    if json:
        for record in records:
            print_json(record)
        return 0
    head = ("name", "what for", "size", "licence", "installed", "measured")
    print_table(head, [_row(record) for record in records])
    return 0


@app.command()
def info(model: Name = None, *, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show what is known of a model: where it is from, its parts, its training, what it misses."""
    entry = MODELS.get(model or "")
    if entry is not None and not installed_path(entry.name).is_file():
        record = _summary(entry)
    elif entry is not None and not entry.parts:
        record = {**_summary(entry), **_origin(entry.name)}
    else:
        path = resolve(model)
        record = {**(_summary(entry) if entry else {}), **_origin(path.stem), **_contents(path)}
    if json:
        print_json(record)
    else:
        known = {key: value for key, value in record.items() if value not in (None, [])}
        print_text("".join(f"{key}: {_shown(value)}\n" for key, value in known.items()))
    return 0


@app.command()
def path(model: Name = None, *, json: Json = False, debug: Debug = False) -> int:  # noqa: ARG001 - see run_command
    """Show where a model's file is."""
    found = str(resolve(model))
    if json:
        print_json({"model": model, "path": found})
    else:
        print_text(found + "\n")
    return 0


@app.command()
def pull(
    name: Named,
    *,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File of the repository to take.",
            show_default="the known or the only fitting one",
        ),
    ] = None,
    projector: Projector = "mul",
    force: Annotated[
        bool, typer.Option("--force", help="Fetch it again though it is installed.")
    ] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Fetch a model and what it needs from the Hugging Face hub, check, convert and install it.

    What an interruption leaves is gone on from. A token for private repositories is read from
    HF_TOKEN; HF_ENDPOINT and HF_HUB_OFFLINE work as elsewhere.
    """
    from av2tsam_cli.hub import download

    _known(name, MODELS)
    if name == BUNDLED_MODEL:
        raise UsageError(f"{BUNDLED_MODEL} comes with the package; there is nothing to pull")
    console = Console(quiet=quiet, debug=debug)
    missing = download.missing_models(name, force=force)
    if dry_run:
        for model in missing:
            _announce(model, file if model.name == name else None, json=json)
    if not missing:
        console.note(f"{name}: is installed, with what it needs; --force fetches it again")
    if dry_run or not missing:
        return 0
    progress = _download_bar(console)
    for made in download.pull(name, file=file, projector=projector, force=force, progress=progress):
        _installed(made, json=json)
    return 0


@app.command()
def verify(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="What to check.", show_default="all that is installed"
        ),
    ] = None,
    *,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see run_command
) -> int:
    """Compare the installed files' sha256 with what was recorded; exit code 4 if any differs."""
    names = installed_models.names_to_verify()
    if name is not None:
        _known(name, [*MODELS, *names])
        names = [name]
    statuses = {each: installed_models.verify(each) for each in names}
    for each, status in statuses.items():
        if json:
            print_json({"model": each, "status": status, "path": installed_path(each)})
        else:
            print_text(f"{each}: {_VERDICTS[status].format(installed_path(each), each)}\n")
    return 0 if set(statuses.values()) <= {"ok"} else WeightsError.exit_code


_VERDICTS = {
    "ok": "ok",
    "differs": "{0} is not what was installed; `av2tsam models pull {1} --force` fetches it anew",
    "missing": "{0} is missing; `av2tsam models pull {1}` fetches it",
    "unrecorded": "{0} was not put there by this tool; there is no record to compare it with",
}


@app.command()
def remove(
    name: Named,
    *,
    dry_run: DryRun = False,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see run_command
) -> int:
    """Delete an installed model."""
    _known(name, [*MODELS, *installed_models.names_to_verify()])
    paths = installed_models.files_to_remove(name) if dry_run else installed_models.remove(name)
    if json:
        print_json({"model": name, "removed": not dry_run, "paths": [str(path) for path in paths]})
    else:
        done = "would remove" if dry_run else "removed"
        print_text("".join(f"{done} {path}\n" for path in paths))
    return 0


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A published checkpoint (.pth, .pt, .bin, .safetensors, an index of shards, or a "
            "folder with one of these), or the large networks' tokenizer (.model, .spm).",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .safetensors file to write.",
            show_default="installed under the name that it is recognised as",
        ),
    ] = None,
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        typer.Option(help="Store weights in it.", show_default="as the source has them"),
    ] = None,
    projector: Projector = "mul",
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,  # noqa: ARG001 - see run_command
) -> int:
    """Convert the authors' files, and those that they build on, to files that this tool reads.

    Every tensor is used or named as not needed, and shapes are checked. Pickles are read without
    running anything that is in them.
    """
    if not source.exists():
        raise UsageError(f"{source}: file not found; check the path")
    if out is not None:
        _check_out(source, out, overwrite=overwrite)
    from av2tsam_cli.hub.convert import convert as convert_file
    from av2tsam_cli.inference.device import PRECISIONS

    stored = PRECISIONS[dtype] if dtype else None
    if out is None:
        origin = installed_models.Origin(str(source.resolve()), None)
        made = installed_models.install(
            source, origin, overwrite=overwrite, projector=projector, dtype=stored
        )
        _installed(made, json=json)
        return 0
    report = convert_file(source, out, projector=projector, dtype=stored)
    if json:
        print_json({**asdict(report), "path": out, "bytes": out.stat().st_size})
    else:
        print_text(f"{report}\nwrote {out} ({format_bytes(out.stat().st_size)})\n")
    return 0


def _known(name: str, names: "Mapping[str, object] | list[str]") -> None:
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"they are: {', '.join(names)}"
        raise UsageError(f"{name}: not the name of a model; {hint}")


def _check_out(source: Path, out: Path, *, overwrite: bool) -> None:
    """Say what is wrong with the output before gigabytes are read."""
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: must end in .safetensors")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it first")
    if out.is_dir() or (out.exists() and source.exists() and out.samefile(source)):
        raise UsageError(f"{out}: would replace a folder or the source; choose another name")
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists; pass --overwrite to replace it")


def _announce(model: NamedModel, file: str | None, *, json: bool) -> None:
    """Say what pulling would do."""
    if json:
        print_json(
            {
                "model": model.name,
                "repository": model.repository,
                "file": file or model.file,
                "bytes": model.size,
                "path": installed_path(model.name),
                "installed": False,
            }
        )
        return
    what = f"{file} from {model.repository}" if file else model.origin
    size = "" if model.size or file else " (size unknown)"
    print_text(f"{model.name}: would download {what}{size} to {installed_path(model.name)}\n")


def _installed(made: installed_models.InstalledModel, *, json: bool) -> None:
    """Say what was installed."""
    report = made.report
    if json:
        told = {"report": asdict(report)} if report else {}
        print_json({"model": made.record.name, "path": made.path, **asdict(made.record), **told})
    else:
        told_text = f"{report}\n" if report else ""
        size = format_bytes(made.record.bytes)
        print_text(f"{told_text}installed {made.record.name} as {made.path} ({size})\n")


def _download_bar(
    console: Console,
) -> "Callable[[RemoteFile], AbstractContextManager[Callable[[int], None] | None]]":
    """Shows one file's download."""

    @contextmanager
    def shown(remote: "RemoteFile") -> Generator[Callable[[int], None] | None, None, None]:
        console.note(
            f"downloading {remote.file} from {remote.model.repository} at {remote.commit[:12]}"
        )
        with console.progress(remote.model.name, remote.bytes, "bytes") as update:
            yield update

    return shown


def _summary(model: NamedModel) -> dict[str, object]:
    """What the registry knows, and whether it is installed."""
    path = installed_path(model.name)
    here = path.is_file()
    size = model.size if model.repository else (path.stat().st_size if here else None)
    return {
        "model": model.name,
        "purpose": model.purpose,
        "bytes": size,
        "licence": model.licence,
        "installed": here,
        "path": str(path),
        "repository": model.repository,
        "file": model.file,
        "parts": list(model.parts),
        "needs": list(model.needs),
        "preset": model.preset,
        "unverified": model.unverified or None,
        "measured": _measured(path) if here and model.parts else None,
    }


def _measured(path: Path) -> object:
    """The scores on a model's own card; None where there are none."""
    try:
        card = _value(read_metadata(path).get("card", "{}"))
    except WeightsError:  # `verify` is for that
        return None
    return card.get("scores") if isinstance(card, dict) else None


def _row(record: Mapping[str, Any]) -> list[str]:
    """One model's line of the table."""
    size = record["bytes"]
    return [
        record["model"],
        record["purpose"],
        "unknown" if size is None else format_bytes(size),
        record["licence"],
        "yes" if record["installed"] else "no",
        _scores(record["measured"]),
    ]


def _scores(scores: Any) -> str:
    try:
        return f"mIoU {scores['s4']['miou']:.3f} S4, {scores['ms3']['miou']:.3f} MS3 (see info)"
    except (KeyError, TypeError):
        return "not measured here"


def _origin(name: str) -> dict[str, object]:
    """What was recorded when a model was installed."""
    record = installed_models.read_record(name)
    return {} if record is None else {"record": asdict(record)}


def _contents(path: Path) -> dict[str, object]:
    """What a checkpoint holds, what it misses, and what it says of itself."""
    from av2tsam_cli.model.config import ModelConfig

    metadata = {key: _value(text) for key, text in sorted(read_metadata(path).items())}
    counts = _parameters(path)
    config = ModelConfig.from_json(read_metadata(path)["config"])
    parameters = {part: count.total() for part, count in counts.items()}
    types = sum(counts.values(), start=Counter[str]())
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "preset": config.name,
        "dtype": [name for name, _ in types.most_common()],
        "parameters": {**parameters, "total": sum(parameters.values())},
        "missing": _missing(path, config, set(counts)),
        **metadata,
    }


def _parameters(path: Path) -> dict[str, Counter[str]]:
    """Return the number of parameters by part of the network and by type."""
    counts: dict[str, Counter[str]] = {}
    for name, tensor in TensorFile(path).tensors.items():
        counts.setdefault(name.partition(".")[0], Counter())[tensor.dtype] += prod(tensor.shape)
    return counts


def _missing(path: Path, config: "ModelConfig", parts: set[str]) -> list[str]:
    """Names of what a checkpoint needs and is neither in it, nor beside it, nor installed."""
    hears = "projector" in parts
    absent = [part for part in ("clip", "clap", "text_sam") if hears and part not in parts]
    names = [part_name(config, part) for part in absent]
    missing = [name for name in names if find_model(name, path) is None]
    speaks = (hears or "text_sam" in parts) and not config.words
    return missing + ([TOKENIZER] if speaks and find_tokenizer(path) is None else [])


def _value(text: str) -> object:
    """Metadata is text; most of it is JSON."""
    try:
        return loads(text)
    except JSONDecodeError:
        return text


def _shown(value: object) -> str:
    return value if isinstance(value, str) else dumps(value)
