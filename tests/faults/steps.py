"""Kills a process just before one of its changes to files."""

import os
import signal
import sys
from pathlib import Path

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def die_at_step(step: int, folder: Path) -> None:
    """Kill this process before its `step`-th change in a folder, counted from 0.

    Changes are opening a file for writing, and creating, renaming or removing a name. Files that
    FFmpeg opens are not counted. The hook stays for the life of the process.
    """
    seen = 0

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and bool(flags & WRITING)
        else:
            path, changes = arguments[0] if arguments else None, event in CHANGES
        if not changes or not isinstance(path, str | Path):
            return
        # Relative names are from shutil.rmtree, which opens folders.
        if Path(path).is_absolute() and not Path(path).is_relative_to(folder):
            return
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    sys.addaudithook(count)
