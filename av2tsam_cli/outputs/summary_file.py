"""Base class of files about a whole video, which are written when it has ended."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from av2tsam_cli.files import atomic_file, write_errors
from av2tsam_cli.outputs.part import WrittenPart
from av2tsam_cli.values import MaskedFrame


class SummaryFile(ABC):
    """A writer that processes every frame, and writes one file at the end.

    The file gets its name when it is complete. Nothing is created before the writer is entered.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        """Set the file.

        Args:
            path: The file.
            overwrite: Whether an existing file is replaced.
        """
        self.path, self.overwrite = path, overwrite
        self.outputs: tuple[Path, ...] = (path,)
        self._open = ExitStack()

    @abstractmethod
    def write(self, masked: MaskedFrame) -> None:
        """Process the next frame."""

    @abstractmethod
    def append(self, parts: Sequence[WrittenPart]) -> None:
        """Process all parts of a video, in order."""

    @abstractmethod
    def finish(self, part: Path) -> None:
        """Write the file to a path, when the video has ended."""

    def __enter__(self) -> Self:
        with write_errors(self.path):
            file = atomic_file(self.path, overwrite=self.overwrite)
            self._part = self._open.enter_context(file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with write_errors(self.path), self._open:
            if error is None:
                self.finish(self._part)
            self._open.pop_all().__exit__(kind, error, trace)
