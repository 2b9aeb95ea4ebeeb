"""The folder of one training: its record, its numbers, its checkpoints, and who may write there.

run.json             every option, versions, seed, state of code and data, how it ended
epochs.csv           one line per epoch
steps.csv            one line per step of the optimiser
curves.png           both as curves
best.safetensors     the model of the epoch with the highest validation mIoU
last.safetensors     the model as it was last
resume.safetensors   what `--resume` goes on from
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from av2tsam_cli.errors import MediaError, UsageError, WeightsError
from av2tsam_cli.hub.checkpoint import save_network, write_tensors
from av2tsam_cli.model.av2tsam import Av2tSam
from av2tsam_cli.outputs.staging import MENDS, OTHER_MEND, make_folders, remove_if_empty
from av2tsam_cli.training.curves import Panel, draw_png
from av2tsam_cli.training.options import TrainOptions
from av2tsam_cli.training.progress import EpochRow, Position, StepRow

RECORD = "run.json"
LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process may write to, and no other one."""

    path: Path

    @property
    def best(self) -> Path:
        """The model of the best epoch."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The model as it was last."""
        return self.path / "last.safetensors"

    @property
    def state(self) -> Path:
        """What `--resume` goes on from."""
        return self.path / "resume.safetensors"

    @property
    def _steps(self) -> Path:
        return self.path / "steps.csv"

    def begin(self, record: Mapping[str, Any]) -> None:
        """Make it a new run: files of a run that was there before are removed."""
        for path in (self.best, self.last, self.state, *self.path.glob("*.csv")):
            path.unlink(missing_ok=True)
        self.write_record(record)
        with writing(self._steps), self._steps.open("w", newline="") as file:
            csv.writer(file).writerow(field.name for field in fields(StepRow))

    def go_on(self, position: Position) -> None:
        """Forget the steps that were done after the state that is gone on from."""
        with writing(self._steps):
            with self._steps.open(newline="") as file:
                kept = list(islice(file, position.step + 1))
            replace_file(self._steps, "".join(kept).encode())

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        text = json.dumps(record, indent=2, default=str) + "\n"
        replace_file(self.path / RECORD, text.encode())

    def add_step(self, row: StepRow) -> None:
        """Add a line to `steps.csv`."""
        with writing(self._steps), self._steps.open("a", newline="") as file:
            csv.writer(file).writerow(astuple(row))

    def write_epochs(self, rows: Sequence[EpochRow]) -> None:
        """Write `epochs.csv` and `curves.png` anew."""
        names = [field.name for field in fields(EpochRow)]
        lines = [",".join(map(str, cells)) for cells in (names, *map(astuple, rows))]
        replace_file(self.path / "epochs.csv", "".join(f"{line}\n" for line in lines).encode())
        replace_file(self.path / "curves.png", draw_png(_panels(rows, self.read_steps())))

    def read_steps(self) -> list[StepRow]:
        """The lines of `steps.csv`."""
        with self._steps.open(newline="") as file:
            return [
                StepRow(
                    step=int(line["step"]),
                    epoch=int(line["epoch"]),
                    loss=float(line["loss"]),
                    lr=float(line["lr"]),
                    grad_norm=float(line["grad_norm"]),
                )
                for line in csv.DictReader(file)
            ]

    def save_model(
        self, path: Path, network: Av2tSam, metadata: Mapping[str, object], *, whole: bool
    ) -> None:
        """Write `best` or `last`, whole or only what is trained."""
        with writing(path):
            save_network(network, path, metadata, trained_only=not whole)

    def save_state(
        self, network: Av2tSam, tensors: Mapping[str, Tensor], state: Mapping[str, object]
    ) -> None:
        """Write what `--resume` goes on from."""
        with writing(self.state):
            write_tensors(tensors, self.state, network.config, {"state": state})


@contextmanager
def open_folder(options: TrainOptions) -> Iterator[RunFolder]:
    """Make the folder, or find the run in it, and keep other processes out while the block runs.

    A folder that was made is removed again where no run came to be in it.

    Raises:
        UsageError: There is a run already, or none to resume, or something else.
        MediaError: Another process trains into it, or it cannot be written.
    """
    folder = options.out
    check_folder(options)
    with writing(folder):
        made = make_folders(folder)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        with writing(folder):
            lock.acquire()
        yield RunFolder(folder)
    except Timeout as error:
        raise MediaError(
            f"{folder}: in use by another process that trains into it; wait for it, or name "
            "another folder with --out"
        ) from error
    finally:
        lock.release()
        if made and not (folder / RECORD).exists():
            (folder / LOCK).unlink(missing_ok=True)
            remove_if_empty(made)


def check_folder(options: TrainOptions) -> None:
    """Refuse what was not asked for.

    Raises:
        UsageError: There is a run already, or none to resume, or something else.
    """
    folder = options.out
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder with --out")
    is_run = (folder / RECORD).is_file()
    if options.resume and not is_run:
        raise UsageError(f"{folder}: holds no run to go on with; leave --resume out")
    if is_run and not options.resume and not options.overwrite:
        raise UsageError(
            f"{folder}: holds a run already; pass --resume to go on with it or --overwrite to "
            "replace it, or name another folder with --out"
        )
    held = folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
    if held and not is_run:
        raise UsageError(f"{folder}: holds other things than a run; name another folder with --out")


def read_record(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        UsageError: There is none.
        MediaError: It is damaged.
    """
    path = folder / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: holds no run to go on with; leave --resume out") from error
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: is damaged ({error}); start again with --overwrite") from error
    return record


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file of the run is written into one line.

    Raises:
        MediaError: The disk is full, or the place is not writable.
    """
    try:
        yield
    except Timeout:  # an OSError too, of the lock
        raise
    except OSError as error:
        raise _unwritten(path, error.strerror or str(error), error.errno) from error
    except WeightsError as error:
        cause = error.__cause__
        number = cause.errno if isinstance(cause, OSError) else None
        raise _unwritten(path, str(cause), number) from error


def _unwritten(path: Path, reason: str, number: int | None) -> MediaError:
    # safetensors passes the operating system's number on in words only.
    named = [n for n in MENDS if n == number or f"os error {n})" in reason]
    mend = MENDS[named[0]] if named else OTHER_MEND
    return MediaError(
        f"{path}: cannot be written ({reason}); what was saved before is kept: {mend}, then go on "
        "with --resume"
    )


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside its place, then move it there.

    Raises:
        MediaError: It cannot be written; what was there stays.
    """
    partial = path.with_name(path.name + ".part")
    with writing(path):
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _panels(rows: Sequence[EpochRow], steps: Sequence[StepRow]) -> list[Panel]:
    """Loss over steps and scores over epochs."""
    return [
        Panel(
            "loss, by step",
            {
                "each step": [(row.step, row.loss) for row in steps],
                "mean of epoch": [(row.step, row.loss) for row in rows],
            },
        ),
        Panel(
            "validation, by epoch",
            {
                "mIoU": [(row.epoch, row.val_miou) for row in rows],
                "F": [(row.epoch, row.val_f_score) for row in rows],
            },
        ),
    ]


def now() -> str:
    """The time, in UTC, as text."""
    return datetime.now(UTC).isoformat(timespec="seconds")
