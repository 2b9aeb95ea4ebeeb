"""Run commands, each in a forked process that may crash, hang or allocate too much.

Forking saves the seconds that importing torch takes. It needs POSIX, and a process without threads.
"""

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

KIB = 1024
POLL_S = 0.005
WALL_PER_CPU = 20
"""Seconds that a process may take for each second of CPU time, on a machine that others use too."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    exit_code: int
    """Its exit code; negative for the signal that ended the process."""
    stdout: str
    """What it printed to stdout."""
    stderr: str
    """What it printed to stderr; after a crash, also where each thread was."""
    peak_bytes: int
    """Peak of its resident memory, including what was imported before it was forked."""
    cpu_s: float
    """CPU time in seconds."""

    @property
    def fault(self) -> str | None:
        """What no input may cause: a crash, a hang, or an error that nobody foresaw."""
        if self.exit_code in {-signal.SIGXCPU, -signal.SIGKILL}:
            return "timeout"
        if self.exit_code < 0:
            return f"crash: {signal.Signals(-self.exit_code).name}"
        if "Traceback" in self.stderr or "unexpected " in self.stderr:
            return "unexpected error"
        return None


def run_forked(argv: Sequence[str], *, cpu_s: int) -> Outcome:
    """Run a command of `av2tsam` in a forked process.

    Args:
        argv: The arguments after `av2tsam`.
        cpu_s: CPU time in seconds after which it is ended; real time has a wider limit.
    """
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        child = os.fork()
        if child == 0:
            _run(argv, out.fileno(), err.fileno(), cpu_s)
        status, usage = _wait(child, cpu_s * WALL_PER_CPU)
        text = []
        for file in (out, err):
            file.seek(0)
            text.append(file.read().decode(errors="replace"))
    return Outcome(
        exit_code=os.waitstatus_to_exitcode(status),
        stdout=text[0],
        stderr=text[1],
        peak_bytes=usage.ru_maxrss * KIB,
        cpu_s=usage.ru_utime + usage.ru_stime,
    )


def _run(argv: Sequence[str], out: int, err: int, cpu_s: int) -> None:
    """Run the command and end this process."""
    from av2tsam_cli.__main__ import main

    code = 99
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        os.dup2(out, 1)
        os.dup2(err, 2)
        faulthandler.enable(2)
        code = main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, limit_s: float) -> tuple[int, resource.struct_rusage]:
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        process, status, usage = os.wait4(child, os.WNOHANG)
        if process:
            return status, usage
        time.sleep(POLL_S)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage
