"""The inputs of a command and their outcomes; a failed input does not stop the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Literal, TypeVar

from av2tsam_cli.cli.console import Console, StdoutError, exit_code_of, explain, print_json
from av2tsam_cli.cli.progress import BatchProgress
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError

T = TypeVar("T")
Status = Literal["done", "planned", "skipped", "failed"]

OTHER_NAMES = "give them other names, such as --name-template '{parent}_{stem}'"
"""Advice if several inputs would have the same output."""
_PENDING = -1


class Batch:
    """Keeps and reports the outcome of each input of a command, and the exit code.

    The outcomes are in memory that this process shares with the processes forked from it, see
    `isolation`. Each of them can have a share of the inputs.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        console: Console,
        *,
        json: bool,
        keys: Mapping[str, object] | None = None,
        shares: int = 1,
    ) -> None:
        """Create a batch of pending inputs.

        Args:
            inputs: The inputs; each is finished once, by `finish`, an error or an interruption.
            console: Prints the errors.
            json: Whether to print a record for each finished input.
            keys: The keys of all records, with the values to use where they are unknown.
            shares: Number of processes that share the inputs.
        """
        self.console = console
        self.json = json
        self.keys = keys or {}
        self._indices = {source: index for index, source in enumerate(inputs)}
        self.shares = shares
        self._share: int | None = None  # all inputs
        # The exit code of each input, or _PENDING; then the index of each share's active input.
        self._state = memoryview(mmap(-1, 4 * (len(inputs) + shares))).cast("i")
        for index in range(len(self._state)):
            self._state[index] = _PENDING
        self._print_lock: IO[bytes] | None = None

    def open_lock(self) -> None:
        """Create a lock, so that processes forked from now on do not print at the same time."""
        if self.shares > 1:  # the system releases a file lock when a process ends or crashes
            self._print_lock = TemporaryFile()  # noqa: SIM115 - open until the process ends

    def take_share(self, share: int | None) -> None:
        """Limit `pending` and `active` to the share with this index; None for all inputs."""
        self._share = share

    @property
    def is_first(self) -> bool:
        """Whether this process prints the notes that concern all inputs."""
        return not self._share

    @property
    def pending(self) -> list[Path]:
        """The unfinished inputs in the share of this process."""
        return [
            source
            for source, index in self._indices.items()
            if self._state[index] == _PENDING and self._share in {None, index % self.shares}
        ]

    def progress(self, totals: Mapping[Path, float | None]) -> BatchProgress:
        """Return the progress of inputs that are about to be processed.

        Args:
            totals: The length of each input, in frames or seconds; None if unknown.
        """
        return BatchProgress({each: index + 1 for each, index in self._indices.items()}, totals)

    @property
    def active(self) -> Path | None:
        """The input that is being processed; None between inputs or while a model is loaded."""
        index = self._state[self._active_slot]
        return next((each for each in self.pending if self._indices[each] == index), None)

    @property
    def _active_slot(self) -> int:
        return len(self._indices) + (self._share or 0)

    def finish(
        self,
        source: Path,
        record: Mapping[str, object],
        *,
        status: Status = "done",
        exit_code: int = 0,
    ) -> None:
        """Finish an input, and print its record if `json` is set."""
        self._state[self._indices[source]] = exit_code
        if self.json:
            head = {"input": source, "status": status}
            end = {"error": None, "exit_code": exit_code}
            with self._locked():
                print_json({**head, **self.keys, **end, **record})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of `open_lock`, if there is one, while the block runs."""
        if self._print_lock is None:
            yield
            return
        import fcntl

        fcntl.lockf(self._print_lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._print_lock, fcntl.LOCK_UN)

    def attempt(self, source: Path, work: Callable[[], T]) -> T | None:
        """Call a function for an input and return its result; if it fails, the input fails."""
        self._state[self._active_slot] = self._indices[source]
        try:
            return work()
        except StdoutError:  # not the fault of an input
            raise
        except Exception as error:  # noqa: BLE001 - the other inputs are still processed
            self.fail(error, source)
            return None
        finally:
            self._state[self._active_slot] = _PENDING

    def attempt_all(self, work: Callable[[], T]) -> T | None:
        """Call a function and return its result; if it fails, all pending inputs fail."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - reported for every input
            self.fail(error, *self.pending)
            return None

    def fail(self, error: Exception, *sources: Path) -> None:
        """Print an error, and finish the inputs that failed because of it."""
        self.console.error(error)
        self._finish_failed(error, sources)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run a block; if it is interrupted, the pending inputs fail."""
        try:
            yield
        except KeyboardInterrupt:
            self._finish_failed(Interrupted("interrupted"), self.pending)
            raise

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, the exit code of all failures, or 1 if their codes differ."""
        failures = {self._state[index] for index in self._indices.values()} - {0, _PENDING}
        if not failures:
            return 0
        return min(failures) if len(failures) == 1 else Av2tsamError.exit_code

    def _finish_failed(self, error: Exception, sources: Sequence[Path]) -> None:
        code = exit_code_of(error)
        for source in sources:
            self.finish(source, {"error": explain(error)}, status="failed", exit_code=code)


def check_outputs(
    inputs: Sequence[Path], outputs: Sequence[Mapping[str, Path]], *, named: Mapping[str, Path]
) -> None:
    """Check that no output would replace an input, or the output of another input.

    Args:
        inputs: The inputs.
        outputs: The outputs of each input, by option.
        named: The value of each of these options: a file or a folder.

    Raises:
        UsageError: An output would replace an input, would be written for two inputs, or would be
            in the output folder of another input.
    """
    owners: dict[str, Path] = {}
    for source, own in zip(inputs, outputs, strict=True):
        for option, path in own.items():
            other = owners.setdefault(_key(path), source)
            if other is source:
                continue
            if path == named[option]:
                raise UsageError(
                    f"{path}: cannot hold the output of {len(inputs)} inputs; set `{option}` to a "
                    "folder" + (", and `format`" if option == "out" else "")
                )
            raise UsageError(
                f"{other} and {source}: both would be written to {path}; {OTHER_NAMES}"
            )
    _check_nested(owners)
    for source in inputs:
        if (owner := owners.get(_key(source), source)) is not source:
            raise UsageError(f"{source}: would be replaced by the output of {owner}; {OTHER_NAMES}")


def _check_nested(owners: Mapping[str, Path]) -> None:
    """Check that no output is in an output folder of another input."""
    checked: set[str] = set()
    for key, source in owners.items():
        for folder in Path(key).parents:
            path = str(folder)
            if path in checked:
                break
            if (owner := owners.get(path, source)) is not source:
                raise UsageError(
                    f"{source}: its output would be in {folder}, which is the output of {owner}; "
                    f"{OTHER_NAMES}"
                )
            checked.add(path)


def _key(path: Path) -> str:
    """Return a key that paths of the same file share, also if the file system ignores case."""
    return str(path.absolute()).casefold()
