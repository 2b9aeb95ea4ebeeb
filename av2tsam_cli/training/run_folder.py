"""The folder of one run, which one process at a time may write to.

config.toml          the options, for --config
run.json             options, versions, seed, state of code and data, result
epochs.csv           one row per epoch
steps.csv            one row per optimiser step
curves.png           both as curves, if matplotlib is installed
best.safetensors     the model of the epoch with the highest validation mIoU
last.safetensors     the latest model
resume.safetensors   the state to resume from
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from torch import Tensor

from av2tsam_cli.errors import MediaError, UsageError, WeightsError
from av2tsam_cli.files import atomic_file, parent_folders, read_text_file, write_errors
from av2tsam_cli.hub.checkpoint import save_network, write_tensors
from av2tsam_cli.hub.tensor_file import TensorFile
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.option_files import write_options
from av2tsam_cli.training.callback import EpochRow, StepRow
from av2tsam_cli.training.curves import draw_curves
from av2tsam_cli.training.options import TrainOptions

RECORD = "run.json"
CONFIG = "config.toml"
LOCK = ".lock"
FOLLOWED = (LOCK, "tensorboard", "wandb")
"""What is opened in place. Other files are written beside their name and renamed, which replaces a
symbolic link and leaves what it points to."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process has locked."""

    path: Path
    """The folder."""

    @property
    def best(self) -> Path:
        """The model of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The latest model."""
        return self.path / "last.safetensors"

    @property
    def state(self) -> Path:
        """The state to resume from."""
        return self.path / "resume.safetensors"

    @property
    def steps(self) -> Path:
        """The numbers of each step."""
        return self.path / "steps.csv"

    def start(self, options: TrainOptions, record: Mapping[str, Any]) -> None:
        """Start a new run: remove the files of an earlier one, write `run.json`, `config.toml`."""
        with _write_errors(self.path):
            for path in (self.best, self.last, self.state, *self.path.glob("*.csv")):
                path.unlink(missing_ok=True)
        self.write_record(record)
        self._replace(CONFIG, write_options(options, without=("resume", "overwrite")))
        self._replace("steps.csv", _csv_line([field.name for field in fields(StepRow)]))

    def drop_steps_after(self, step: int) -> None:
        """Remove the rows of `steps.csv` that are newer than the state to resume from."""
        with _write_errors(self.steps), self.steps.open(newline="") as file:
            kept = "".join(islice(file, step + 1))
        self._replace("steps.csv", kept)

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        self._replace(RECORD, json.dumps(record, indent=2, default=str) + "\n")

    def add_step(self, row: StepRow) -> None:
        """Append a row to `steps.csv`."""
        with _write_errors(self.steps), self.steps.open("a", newline="") as file:
            file.write(_csv_line(astuple(row)))

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        """Write `epochs.csv` and `curves.png`."""
        names = [field.name for field in fields(EpochRow)]
        self._replace("epochs.csv", "".join(map(_csv_line, (names, *map(astuple, rows)))))
        curves = draw_curves(self.path.name, rows, self.read_steps())
        if curves is not None:
            self._replace("curves.png", curves)

    def read_steps(self) -> list[StepRow]:
        """Return the rows of `steps.csv`.

        Raises:
            MediaError: It is corrupted.
        """
        with corruption_errors(self.steps), self.steps.open(newline="") as file:
            return [
                StepRow(
                    step=int(row["step"]),
                    epoch=int(row["epoch"]),
                    loss=float(row["loss"]),
                    lr=float(row["lr"]),
                    grad_norm=float(row["grad_norm"]),
                )
                for row in csv.DictReader(file)
            ]

    def save_model(
        self,
        path: Path,
        network: Av2tSam,
        metadata: Mapping[str, object],
        *,
        trained_only: bool,
    ) -> None:
        """Write `best` or `last`, with or without the frozen parts."""
        with _write_errors(path):
            save_network(network, path, metadata, trained_only=trained_only)

    def save_state(
        self, network: Av2tSam, tensors: Mapping[str, Tensor], metadata: Mapping[str, object]
    ) -> None:
        """Write the state to resume from."""
        with _write_errors(self.state):
            write_tensors(tensors, self.state, network.config, {"state": metadata})

    def _replace(self, name: str, content: str | bytes) -> None:
        """Write a file; if that fails, its former content is kept."""
        path = self.path / name
        with _write_errors(path), atomic_file(path) as part:
            part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_folder(options: TrainOptions) -> Iterator[RunFolder]:
    """Create the folder, or check the run in it, and lock it while the block runs.

    A folder that was created is removed again if no run was started in it.

    Raises:
        UsageError: The folder has a run already, has none to resume, or has other content.
        MediaError: Another process is training in it, or it cannot be written.
    """
    check_folder(options)
    folder = options.out
    with ExitStack() as stack:
        with _write_errors(folder):
            stack.enter_context(parent_folders(folder / RECORD))
            _lock(folder, stack)
        yield RunFolder(folder)


def _lock(folder: Path, stack: ExitStack) -> None:
    """Lock a folder until the stack is closed."""
    try:
        stack.enter_context(FileLock(folder / LOCK, timeout=0))
    except Timeout as error:
        raise MediaError(
            f"{folder}: in use by another training; wait until it has finished, or set `out` to "
            "another folder"
        ) from error
    stack.callback(_remove_unused_lock, folder)


def _remove_unused_lock(folder: Path) -> None:
    if not (folder / RECORD).exists():
        (folder / LOCK).unlink(missing_ok=True)


def has_run(folder: Path) -> bool:
    """Return whether a run was started in a folder."""
    return (folder / RECORD).is_file()


def check_folder(options: TrainOptions) -> None:
    """Check that the run may be started or resumed in its folder.

    Raises:
        UsageError: The folder has a run already, has none to resume, or has other content.
    """
    folder = options.out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: not a folder; set `out` to a new folder")
    if options.resume and not has_run(folder):
        raise UsageError(f"{folder}: no run to resume; omit `resume` to start one")
    if has_run(folder) and not options.resume and not options.overwrite:
        raise UsageError(
            f"{folder}: already has a run; set `resume` to continue it, `overwrite` to replace it, "
            "or `out` to another folder"
        )
    for name in FOLLOWED:
        if (folder / name).is_symlink():
            raise UsageError(
                f"{folder / name}: a symbolic link, which leads out of the run; remove it, or set "
                "`out` to another folder"
            )
    has_content = folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
    if has_content and not has_run(folder):
        raise UsageError(f"{folder}: not empty and not a run; set `out` to another folder")


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of `run.json`.

    Raises:
        UsageError: It does not exist.
        MediaError: It is corrupted.
    """
    path = folder / RECORD
    try:
        record: dict[str, Any] = json.loads(read_text_file(path, raises=MediaError))
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no run to resume; omit `resume` to start one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise MediaError(
            f"{path}: corrupted ({error}); set `overwrite` to start the run again"
        ) from error
    if not isinstance(record, dict):
        raise MediaError(f"{path}: corrupted; set `overwrite` to start the run again")
    return record


def read_options(folder: Path) -> TrainOptions:
    """Return the options in `run.json`.

    Raises:
        UsageError: It does not exist.
        MediaError: It is corrupted, or from another version.
    """
    record = read_record(folder)
    with corruption_errors(folder / RECORD):
        return TrainOptions.from_json(record["options"])


@contextmanager
def corruption_errors(path: Path) -> Iterator[None]:
    """Turn what a block raises if the content of a file of the run is wrong into one line.

    Raises:
        MediaError: The block failed.
    """
    try:
        yield
    except (
        UsageError,  # a value that no option can have
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise MediaError(
            f"{path}: corrupted ({reason}); set `overwrite` to start the run again"
        ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of `resume.safetensors`.

    Raises:
        MediaError: It is missing or corrupted.
    """
    try:
        return TensorFile(path).read()
    except WeightsError as error:
        raise MediaError(f"{error}, or set `overwrite` to start the run again") from error


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing a file of the run into one line.

    Raises:
        MediaError: The disk is full, or permission was denied.
    """
    with write_errors(
        path,
        raises=MediaError,
        catch=(SafetensorError,),
        hint="then set `resume` to continue from what was saved before",
    ):
        try:
            yield
        except WeightsError as error:  # from writing a checkpoint
            raise error.__cause__ or error from None


def _csv_line(cells: Sequence[object]) -> str:
    return ",".join(map(str, cells)) + "\n"
