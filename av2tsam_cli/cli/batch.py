"""The inputs of a command. One that fails does not stop the others."""

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
"""What to do if outputs are in each other's way."""
_PENDING = -1


class Batch:
    """Reports what became of each input of a command, and knows the exit code.

    What is known of the inputs is in memory that this process shares with those that are forked
    from it, see `isolation`. Each of these can have a share of the inputs.
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
        """Begin a command.

        Args:
            inputs: The inputs; each is finished once, by `finish`, an error or an interruption.
            console: Prints the errors.
            json: Whether to print a record for each input that is finished.
            keys: The keys of all records, with their values where these are not known.
            shares: Number of processes that share the inputs.
        """
        self.console = console
        self.json = json
        self.keys = keys or {}
        self._places = {source: place for place, source in enumerate(inputs)}
        self.shares = shares
        self._share: int | None = None  # all inputs
        # The exit code of each input, or _PENDING; then for each share the active input's place.
        self._state = memoryview(mmap(-1, 4 * (len(inputs) + shares))).cast("i")
        for place in range(len(self._state)):
            self._state[place] = _PENDING
        self._printing: IO[bytes] | None = None

    def open_lock(self) -> None:
        """Let the processes that are forked from now on print one after the other."""
        if self.shares > 1:  # a process loses such a lock when it ends, however it ends
            self._printing = TemporaryFile()  # noqa: SIM115 - open until the process ends

    def take_share(self, share: int | None) -> None:
        """Limit `pending` and `active` to a share of the inputs, from 0 on; None for all."""
        self._share = share

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints notes about all inputs."""
        return not self._share

    @property
    def pending(self) -> list[Path]:
        """The inputs that are not finished, of the share of this process."""
        return [
            source
            for source, place in self._places.items()
            if self._state[place] == _PENDING and self._share in {None, place % self.shares}
        ]

    def progress(self, totals: Mapping[Path, float | None]) -> BatchProgress:
        """Return the progress of inputs that are about to be processed.

        Args:
            totals: The amount of work in each of them, in frames or seconds; None if unknown.
        """
        return BatchProgress({each: place + 1 for each, place in self._places.items()}, totals)

    @property
    def active(self) -> Path | None:
        """The input at work; None if it is finished, between two, and while a model is loaded."""
        place = self._state[self._active_slot]
        return next((each for each in self.pending if self._places[each] == place), None)

    @property
    def _active_slot(self) -> int:
        return len(self._places) + (self._share or 0)

    def finish(
        self,
        source: Path,
        record: Mapping[str, object],
        *,
        status: Status = "done",
        exit_code: int = 0,
    ) -> None:
        """Finish an input, and print its record if `json` is set."""
        self._state[self._places[source]] = exit_code
        if self.json:
            head = {"input": source, "status": status}
            end = {"error": None, "exit_code": exit_code}
            with self._alone():
                print_json({**head, **self.keys, **end, **record})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Run a block while no other process that shares the inputs runs it."""
        if self._printing is None:
            yield
            return
        import fcntl

        fcntl.lockf(self._printing, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._printing, fcntl.LOCK_UN)

    def attempt(self, source: Path, work: Callable[[], T]) -> T | None:
        """Return what a function returns for an input; an error is printed, and finishes it."""
        self._state[self._active_slot] = self._places[source]
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
        """Return what a function returns; an error is printed, and finishes all pending inputs."""
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - it is reported for every input
            self.fail(error, *self.pending)
            return None

    def fail(self, error: Exception, *sources: Path) -> None:
        """Print an error, and finish the inputs that fail by it."""
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
        """0 if nothing failed, the code that all failures share, or 1 if they differ."""
        failures = {self._state[place] for place in self._places.values()} - {0, _PENDING}
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
    """Check that no output is also that of another input, in a folder of one, or an input.

    Args:
        inputs: The inputs.
        outputs: The outputs of each, by the options that ask for them.
        named: The files or folders that these options name.

    Raises:
        UsageError: One is.
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
    """Check that no output is in the folder of another; own ones are checked with the options."""
    free: set[str] = set()
    for key, source in owners.items():
        for folder in Path(key).parents:
            place = str(folder)
            if place in free:
                break
            if (owner := owners.get(place, source)) is not source:
                raise UsageError(
                    f"{source}: its output would be in {folder}, which is that of {owner}; "
                    f"{OTHER_NAMES}"
                )
            free.add(place)


def _key(path: Path) -> str:
    """Return what paths of the same file share; some file systems do not distinguish case."""
    return str(path.absolute()).casefold()
