"""`av2tsam models`: list, download, convert, verify and remove models."""

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from av2tsam_cli.cli.console import Console, escape, print_json, print_table, print_text
from av2tsam_cli.cli.options import command, new_app
from av2tsam_cli.errors import UsageError, WeightsError
from av2tsam_cli.files import check_new_file
from av2tsam_cli.hub import installed
from av2tsam_cli.hub.describe import describe, describe_entry, network_config
from av2tsam_cli.hub.locate import default_model, home, installed_path, resolve
from av2tsam_cli.hub.registry import BUNDLED_MODEL, MODELS, NamedModel, format_bytes, members
from av2tsam_cli.options import Messages, Option, Overwrite, Panel, check_values, unknown

if TYPE_CHECKING:
    from av2tsam_cli.hub.download import RemoteFile, ReportBytes

Name = Annotated[str, Option("a model from 'av2tsam models list'", metavar="NAME", positional=True)]
Model = Annotated[
    str | None,
    Option(
        "a model from 'av2tsam models list', or a checkpoint file",
        metavar="MODEL",
        positional=True,
        default="the best one installed",
    ),
]
DryRun = Annotated[bool, Option("only print what would be done", panel=Panel.OUTPUT)]
ProjectorOption = Annotated[
    Literal["mul", "clap", "clip"],
    Option(
        "embeddings that a checkpoint of the authors was trained on: the product of audio and "
        "image, or only one of them; this is not stored in the checkpoint",
        panel=Panel.ADVANCED,
    ),
]

app = new_app("List, download, convert, verify and remove models.")


@command(app, "list")
def list_models(*, messages: Messages) -> int:
    """List the models: what to use each for, size, licence, and whether it is installed."""
    records = [describe_entry(entry) for entry in MODELS.values()]
    if messages.json:
        for record in records:
            print_json(record)
    else:
        head = ("model", "installed", "size", "licence", "use")
        print_table(head, [_row(record) for record in records])
    return 0


@command(app)
def info(
    model: Model = None,
    *,
    flops: Annotated[
        bool,
        Option(
            "count the parameters and FLOPs of each part, for one frame with its second of audio; "
            "needs no weights",
            panel=Panel.OUTPUT,
        ),
    ] = False,
    messages: Messages,
) -> int:
    """Show everything known about a model: origin, parts, training, missing models.

    A multiplication with its addition counts as two FLOPs. Only convolutions and matrix products
    count, including those of attention.
    """
    record = describe(model)
    costs = _costs(model) if flops else {}
    if messages.json:
        print_json(record | ({"costs": costs} if flops else {}))
        return 0
    print_text("\n".join(_lines(record)) + "\n")
    if flops:
        rows = [
            [part, f"{cost['parameters'] / 1e6:.2f}", f"{cost['flops'] / 1e9:.3f}"]
            for part, cost in costs.items()
        ]
        print_text("\n")
        print_table(["part", "parameters (millions)", "GFLOPs per frame"], rows)
    return 0


def _costs(model: str | None) -> dict[str, dict[str, int]]:
    """Return the parameters and FLOPs of a model's parts, and their totals."""
    config = network_config(model)
    from av2tsam_cli.model.cost import count_costs

    costs = {part: asdict(cost) for part, cost in count_costs(config).items()}
    return costs | {"total": {key: sum(c[key] for c in costs.values()) for key in costs["clip"]}}


@command(app)
def path(model: Model = None, *, messages: Messages) -> int:
    """Print the path of a model's file."""
    found = str(resolve(model))
    if messages.json:
        print_json({"model": model, "path": found})
    else:
        print_text(found + "\n")
    return 0


@dataclass(frozen=True)
class PullOptions:
    """How to download a model."""

    file: Annotated[
        str | None,
        Option(
            "file in the repository",
            panel=Panel.ADVANCED,
            metavar="FILE",
            default="the known one, or the only one with weights",
        ),
    ] = None
    """Path in the repository; None for the known one, or the only one with weights."""
    projector: ProjectorOption = "mul"
    """`mul`, `clap` or `clip`."""
    force: Annotated[bool, Option("download it again if it is installed", panel=Panel.OUTPUT)] = (
        False
    )
    """Whether an installed model is downloaded again."""

    def __post_init__(self) -> None:
        check_values(self)


@command(
    app,
    examples=[
        ("av2tsam models pull real --dry-run", "sizes and sources"),
        ("av2tsam models pull real", "what real videos need"),
    ],
)
def pull(name: Name, *, options: PullOptions, dry_run: DryRun = False, messages: Messages) -> int:
    """Download, verify and install a model and the models that it needs.

    'real' is a set: it installs everything that real videos need, checks the installed files on a
    few inputs, and becomes the default. Models come from the Hugging Face hub. An interrupted
    download resumes at the next call. Set HF_TOKEN to a token for private repositories; HF_ENDPOINT
    and HF_HUB_OFFLINE are supported.
    """
    from av2tsam_cli.hub.download import missing_models

    _check_name(name, MODELS)
    if name == BUNDLED_MODEL:
        raise UsageError(f"{BUNDLED_MODEL}: comes with the package; there is nothing to download")
    if options.file is not None and MODELS[name].is_set:
        raise UsageError(f"`file`: {name} is a set of models; pull the model of this file instead")
    console = Console(messages)
    missing = missing_models(name, force=options.force)
    if not missing:
        console.note(f"{name}: already installed; pass --force to download it again")
    elif dry_run:
        _dry_run(name, missing, options.file, console, json=messages.json)
    else:
        _download(name, options, console, json=messages.json)
    if MODELS[name].is_set and not dry_run:
        _self_check(name, console, json=messages.json)
        if default_model() == name:
            console.note(f"{name} is now the default model")
    return 0


def _dry_run(
    name: str, missing: Sequence[NamedModel], file: str | None, console: Console, *, json: bool
) -> None:
    """Print what would be downloaded."""
    for entry in missing:
        _announce(entry, file if entry.name == name else None, json=json)
        if entry.unverified:
            console.note(f"{entry.name}: not verified: {entry.unverified}")
    if len(missing) > 1 and not json:
        total = format_bytes(sum(entry.size or 0 for entry in missing))
        unknown = "" if all(entry.size for entry in missing) else ", and one of unknown size"
        print_text(f"{len(missing)} files, {total} in total{unknown}\n")


def _download(name: str, options: PullOptions, console: Console, *, json: bool) -> None:
    """Download and install what is missing."""
    from av2tsam_cli.hub import download

    def announce(remotes: "Sequence[RemoteFile]") -> None:
        if len(remotes) > 1:
            console.note(_plan(remotes))
            for remote in remotes:
                size = format_bytes(remote.bytes)
                console.note(f"  {remote.model.name}: {remote.file}, {size}")

    @contextmanager
    def progress(remote: "RemoteFile") -> Generator["ReportBytes | None", None, None]:
        source = f"{remote.file} from {remote.model.repository} at {remote.commit[:12]}"
        console.note(f"downloading {source}")
        with console.progress(remote.model.name, remote.bytes, "bytes") as report:
            yield report

    for model in download.pull(name, **asdict(options), announce=announce, progress=progress):
        _report(model, json=json)


def _plan(remotes: "Sequence[RemoteFile]") -> str:
    """Return a line about how much will be downloaded, and where to."""
    total, missing = (
        format_bytes(sum(sizes))
        for sizes in ([r.bytes for r in remotes], [r.missing_bytes for r in remotes])
    )
    rest = "" if missing == total else f", of which {missing} are still missing"
    return f"downloading {len(remotes)} files, {total}{rest}, to install in {home()}"


def _self_check(name: str, console: Console, *, json: bool) -> None:
    """Run the self-check of a set and print its results.

    Raises:
        WeightsError: A check failed.
    """
    console.note(f"{name}: checking the installed files on a few inputs")
    from av2tsam_cli.inference.self_check import self_check

    checks = list(self_check(resolve(name)))
    if json:
        print_json({"model": name, "self_check": [asdict(check) for check in checks]})
    else:
        rows = [
            (
                check.path.stem,
                check.what,
                "" if check.cosine is None else f"{check.cosine:.4f}",
                "failed" if check.problem else "ok",
            )
            for check in checks
        ]
        print_table(("checked", "input", "cosine", "result"), rows)
    for check in checks:
        if check.problem:
            raise WeightsError(
                f"{check.path}: failed the self-check: {check.problem}; run 'av2tsam models pull "
                f"{check.path.stem} --force', and report it if that does not help"
            )


@command(app)
def verify(
    name: Annotated[
        str | None,
        Option("the model to verify", metavar="NAME", positional=True, default="all installed"),
    ] = None,
    *,
    messages: Messages,
) -> int:
    """Compare the sha256 of installed files with their records; exit with 4 if one differs.

    'av2tsam models verify real' also checks the files on a few inputs, as 'models pull real' does.
    """
    names = installed.names_to_verify()
    if name is not None:
        _check_name(name, [*MODELS, *names])
        names = members(name)
    statuses = {each: installed.verify(each) for each in names}
    for each, status in statuses.items():
        if messages.json:
            print_json({"model": each, "status": status, "path": installed_path(each)})
        else:
            verdict = VERDICTS[status].format(path=installed_path(each), name=each)
            print_text(f"{escape(f'{each}: {verdict}')}\n")
    if not set(statuses.values()) <= {"ok"}:
        return WeightsError.exit_code
    if name is not None and name in MODELS and MODELS[name].is_set:
        _self_check(name, Console(messages), json=messages.json)
    return 0


VERDICTS = {
    "ok": "ok",
    "differs": "{path} was changed after installation; run 'av2tsam models pull {name} --force'",
    "missing": "{path} is missing; run 'av2tsam models pull {name}'",
    "unrecorded": "{path} was not installed by this tool; there is no record to compare it with",
}


@command(app)
def remove(name: Name, *, dry_run: DryRun = False, messages: Messages) -> int:
    """Delete an installed model, or the models of a set that no other installed model needs."""
    _check_name(name, [*MODELS, *installed.names_to_verify()])
    kept = installed.members_to_keep(name)
    paths = installed.files_to_remove(name) if dry_run else installed.remove(name)
    if messages.json:
        print_json(
            {"model": name, "removed": not dry_run, "paths": list(map(str, paths)), "kept": kept}
        )
    else:
        action = "would remove" if dry_run else "removed"
        print_text("".join(f"{action} {escape(str(path))}\n" for path in paths))
        print_text("".join(f"kept {each}, which another installed model needs\n" for each in kept))
    return 0


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert a published checkpoint."""

    out: Annotated[
        Path | None,
        Option(
            "the .safetensors file to write",
            panel=Panel.OUTPUT,
            metavar="FILE",
            short="-o",
            default="install it under the name of the recognised model",
        ),
    ] = None
    """The file to write; None installs the model."""
    overwrite: Overwrite = False
    """Whether an existing file or installed model is replaced."""
    dtype: Annotated[
        Literal["fp32", "fp16", "bf16"] | None,
        Option("type in which weights are stored", panel=Panel.OUTPUT, default="as in the source"),
    ] = None
    """`fp32`, `fp16`, `bf16`, or None for the types of the source."""
    projector: ProjectorOption = "mul"
    """`mul`, `clap` or `clip`."""

    def __post_init__(self) -> None:
        check_values(self)
        if self.out is not None:
            check_new_file(self.out, overwrite=self.overwrite, suffix=".safetensors")


@command(
    app,
    examples=[
        ("av2tsam models convert CLAP_weights_2023.pth", "install as clap-microsoft"),
        ("av2tsam models convert AVTSAM.pth -o mine.safetensors", "write a file"),
    ],
)
def convert(
    source: Annotated[
        Path,
        Option(
            "a published checkpoint (.pth, .pt, .bin, .safetensors, an index of shards, or a "
            "folder with one of these), or the tokenizer (.model, .spm)",
            metavar="SOURCE",
            positional=True,
        ),
    ],
    *,
    options: ConvertOptions,
    messages: Messages,
) -> int:
    """Convert published checkpoints to files that this tool reads, and install them.

    Every tensor is used, or skipped for a stated reason, and all shapes are checked. Pickles are
    read without running code that they contain.
    """
    out = options.out
    if not source.exists():
        raise UsageError(f"{source}: file not found; check the path")
    if out is not None and out.exists() and out.samefile(source):
        raise UsageError(f"{out}: is the source; choose another name")
    from av2tsam_cli.hub.convert import convert as convert_file
    from av2tsam_cli.inference.device import PRECISIONS

    dtype = PRECISIONS[options.dtype] if options.dtype else None
    if out is None:
        origin = installed.Origin(str(source.resolve()), None)
        model = installed.install(
            source, origin, overwrite=options.overwrite, projector=options.projector, dtype=dtype
        )
        _report(model, json=messages.json)
        return 0
    report = convert_file(source, out, projector=options.projector, dtype=dtype)
    size = out.stat().st_size
    if messages.json:
        print_json({**asdict(report), "path": out, "bytes": size})
    else:
        print_text(f"{report}\nwrote {out} ({format_bytes(size)})\n")
    return 0


def _check_name(name: str, names: Collection[str]) -> None:
    if name not in names:
        raise UsageError(unknown("model", name, list(names)))


def _announce(entry: NamedModel, file: str | None, *, json: bool) -> None:
    """Print what pulling a model would download."""
    path = installed_path(entry.name)
    if json:
        print_json(
            {
                "model": entry.name,
                "repository": entry.repository,
                "file": file or entry.file,
                "bytes": None if file else entry.size,
                "path": path,
                "installed": False,
            }
        )
        return
    origin = f"{file} from huggingface.co/{entry.repository}" if file else entry.origin
    size = "" if entry.size and not file else " (size unknown)"
    print_text(f"{entry.name}: would download {origin}{size} to {path}\n")


def _report(model: installed.InstalledModel, *, json: bool) -> None:
    """Print what was installed."""
    record, report = model.record, model.report
    if json:
        details = {"report": asdict(report)} if report else {}
        print_json({"model": record.name, "path": model.path, **asdict(record), **details})
    else:
        details_text = f"{report}\n" if report else ""
        size = format_bytes(record.bytes)
        print_text(f"{details_text}installed {record.name} as {model.path} ({size})\n")


def _row(record: Mapping[str, Any]) -> list[str]:
    """Return a model's row of the table."""
    size = record["bytes"]
    return [
        record["model"],
        "yes" if record["installed"] else "no",
        "unknown" if size is None else format_bytes(size),
        record["licence"],
        record["purpose"] + _scores(record["measured"], record["parts"]),
    ]


def _scores(scores: Any, parts: Collection[str]) -> str:
    """Return the scores on a model's card as text; for a whole network, also if it has none."""
    try:
        return f"; mIoU {scores['s4']['miou']:.3f} S4, {scores['ms3']['miou']:.3f} MS3"
    except (LookupError, TypeError, ValueError):
        return "; not measured here" if "text_sam" in parts else ""


def _lines(record: Mapping[str, Any], indent: str = "") -> list[str]:
    """Return a description as lines, with nested values indented, and without empty values.

    The configuration has about 90 values, so only --json shows it.
    """
    lines = []
    for key, value in record.items():
        if value is None or value in ([], {}) or key in {"config", "measured"}:
            continue
        if isinstance(value, Mapping):
            lines += [f"{indent}{escape(key)}:", *_lines(value, indent + "  ")]
        else:
            lines.append(
                f"{indent}{'size' if key == 'bytes' else escape(key)}: {_text(key, value)}"
            )
    return lines


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(escape(str(each)) for each in value)
    return format_bytes(value) if key == "bytes" and isinstance(value, int) else escape(str(value))
