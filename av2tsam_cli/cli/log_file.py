"""The file of `--log-file`."""

import os
import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from av2tsam_cli.errors import NOT_A_FILE, UsageError
from av2tsam_cli.files import is_special

Kind = Literal["command", "setting", "note", "detail", "error", "trace", "end"]

_RECORD = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
"""The start of each line."""


class LogFile:
    """A file to which records are appended as lines, with their time, process ID and kind.

    Processes forked from this one may write to it too.
    """

    def __init__(self, path: Path) -> None:
        """Open or create a file.

        Raises:
            UsageError: The file cannot be written, or is not a log.
        """
        try:
            if path != Path(os.devnull) and is_special(path):
                raise UsageError(f"{path}: {NOT_A_FILE}")
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            begin = os.read(self._file, len("2026-01-01T00:00:00"))
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be written as a log ({error.strerror}); use another `log_file`"
            ) from error
        if begin and not _RECORD.match(begin):  # such as an input or a result, by mistake
            os.close(self._file)
            raise UsageError(f"{path}: exists and is not a log; use another `log_file`")

    def write(self, kind: Kind, text: str) -> None:
        """Append a record; a text of several lines becomes several records."""
        time = datetime.now().astimezone().isoformat(timespec="milliseconds")
        head = f"{time} [{os.getpid()}] {kind:<7} "
        lines = "".join(f"{head}{line}\n" for line in text.split("\n"))
        with suppress(OSError):  # a full disk should not end a command that writes elsewhere
            os.write(self._file, lines.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
