"""The inputs of a command. One that fails does not stop the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from av2tsam_cli.cli.console import Console, StdoutError, exit_code_of, explain, print_json
from av2tsam_cli.errors import NOT_A_FILE, Av2tsamError, Interrupted, UsageError

T = TypeVar("T")


class Batch:
    """Reports what became of each input of a command, and knows the exit code."""

    def __init__(self, inputs: Sequence[Path], console: Console, *, json: bool) -> None:
        """Begin a command.

        Args:
            inputs: The inputs; each is finished once, by `finish`, an error or an interruption.
            console: Prints the errors.
            json: Whether to print a record for each input that is finished.
        """
        self.console = console
        self.json = json
        self.pending = list(inputs)
        self.failures: set[int] = set()

    def finish(self, source: Path, record: Mapping[str, object]) -> None:
        """Finish an input, and print its record if `json` is set."""
        self.pending.remove(source)
        if self.json:
            print_json({"input": source, **record})

    def attempt(self, work: Callable[[], T], *sources: Path) -> T | None:
        """Return what a function returns; an error is printed, and finishes the given inputs."""
        try:
            return work()
        except StdoutError:  # not the fault of an input
            raise
        except Exception as error:  # noqa: BLE001 - the other inputs are still processed
            self.console.error(error)
            for source in sources:
                self._fail(source, error)
            return None

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Run a block; if it is interrupted, the pending inputs fail."""
        try:
            yield
        except KeyboardInterrupt:
            for source in list(self.pending):
                self._fail(source, Interrupted("interrupted"))
            raise

    @property
    def exit_code(self) -> int:
        """0 if nothing failed, the code that all failures share, or 1 if they differ."""
        if not self.failures:
            return 0
        return min(self.failures) if len(self.failures) == 1 else Av2tsamError.exit_code

    def _fail(self, source: Path, error: Exception) -> None:
        code = exit_code_of(error)
        self.failures.add(code)
        self.finish(source, {"error": explain(error), "exit_code": code})


def check_input(source: Path) -> None:
    """Check that an input is a file, not a pipe or a device.

    Raises:
        UsageError: It is not.
    """
    if source.is_dir():
        raise UsageError(f"{source}: is a folder; pass the files in it, such as '{source}/*.mp4'")
    if not source.exists():
        if source.is_symlink():
            raise UsageError(f"{source}: a symbolic link to no file; check where it points")
        if str(source) == "-":
            raise UsageError("-: stdin is not supported; save the input to a file first")
        matches = "no file matches; check the pattern" if "*" in str(source) else ""
        raise UsageError(f"{source}: {matches or 'file not found; check the path'}")
    if not source.is_file():
        raise UsageError(f"{source}: {NOT_A_FILE}")


def check_outputs(
    inputs: Sequence[Path], output: Callable[[Path], Path], *, out: Path, hint: str
) -> None:
    """Check that no two inputs have the same output.

    Args:
        inputs: The inputs.
        output: Returns the output of an input.
        out: The value of `out`.
        hint: What to do if `out` is the output of several inputs.

    Raises:
        UsageError: Two of them do.
    """
    owners: dict[str, Path] = {}
    for source in inputs:
        path = output(source)
        # Some file systems do not distinguish case.
        other = owners.setdefault(str(path).casefold(), source)
        if other != source and path == out:
            raise UsageError(f"{path}: cannot hold the output of {len(inputs)} inputs; {hint}")
        if other != source:
            raise UsageError(
                f"{other} and {source}: both would be written to {path}; run them one by one, "
                "each with its own `out`"
            )
