"""Process the inputs of a command in a child process, which a crash ends instead of the command.

Decoders are written in C, and a damaged or hostile file can make one write to memory that it does
not own. The system then ends the whole process, with no error that Python could catch. The process
that the user started therefore only waits. If its child crashes, it reports the input at which
that happened, removes what was left unfinished, and has another child process the other inputs.

Only on Linux: other systems cannot fork, or not safely, or leave a child behind when its parent is
killed. The child is forked before torch and FFmpeg are imported, as their threads would be lost.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from av2tsam_cli.cli.batch import Batch
from av2tsam_cli.errors import Av2tsamError, MediaError
from av2tsam_cli.files import remove_dead_parts
from av2tsam_cli.signals import SIGNAL_NAMES, handle_signals

CRASHES = frozenset({"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"})
"""Signals by which the system, or the C library, ends a process that did something wrong."""
_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>

_allowed = threading.Event()


def allow_isolation() -> None:
    """Let `run_isolated` fork, because this process runs nothing but the command line."""
    _allowed.set()


def run_isolated(batch: Batch, work: Callable[[], int], *, outs: Sequence[Path]) -> int:
    """Process the inputs of a batch, so that a crash costs one of them.

    Args:
        batch: The inputs. `attempt` says which one is being processed.
        work: Processes the pending inputs of the batch and returns the exit code.
        outs: The files to write, and the folders in which outputs are written.

    Raises:
        SystemExit: In the process that waits, with the exit code; the child has said everything.
    """
    with batch.interruptible():
        if not _allowed.is_set() or sys.platform != "linux" or threading.active_count() > 1:
            return work()
        places = {place for out in outs for place in (out, *out.parents)}
        missing = [place for place in places if not place.exists()]
        while batch.pending:
            code = _fork_and_wait()
            if code is None:
                if batch.console.debug:
                    faulthandler.enable()  # a crash then prints where it happened
                return work()
            if code >= 0:
                raise SystemExit(code)
            batch.console.remove_bar()
            _remove_unfinished([place for out in outs for place in (out, out.parent)], missing)
            _report(batch, signal.Signals(-code))
        raise SystemExit(batch.exit_code)


def _fork_and_wait() -> int | None:
    """Return None in a new child, and in this process how that ended: the negative of a signal.

    Signals that interrupt the command are passed on to the child, which removes its unfinished
    outputs.

    Raises:
        KeyboardInterrupt: The command was interrupted, but the child crashed.
    """
    sys.stdout.flush()  # else both processes write what is in the buffers
    sys.stderr.flush()
    parent, received = os.getpid(), list[int]()
    # Signals wait until each process handles them in its own way.
    numbers = [getattr(signal, name) for name in SIGNAL_NAMES]
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        child = os.fork()
    except OSError:  # too many processes: work in this one
        child = None
    if not child:
        if child == 0:
            _end_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return None

    def pass_on(number: int) -> None:
        received.append(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    with handle_signals(pass_on):
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if received and code < 0:
        raise KeyboardInterrupt
    return code


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, even if that is killed itself."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os.kill(os.getpid(), signal.SIGKILL)


def _remove_unfinished(folders: list[Path], missing: list[Path]) -> None:
    """Remove what a dead child left in folders, and the folders that were missing before."""
    remove_dead_parts.cache_clear()
    for folder in folders:
        remove_dead_parts(folder)
    for folder in sorted(missing, key=lambda each: -len(each.parts)):
        with suppress(OSError):  # it is not empty, or was not created
            folder.rmdir()


def _report(batch: Batch, by: signal.Signals) -> None:
    """Print what a signal did to the input at work; if there was none, to all that are pending."""
    if batch.active is not None:
        batch.fail(_explain(batch.active, by), batch.active)
    elif batch.pending:
        error = Av2tsamError(
            f"{batch.pending[0]}: the process was ended ({by.name}) before any input was read, "
            "perhaps because memory ran out; free memory, or use a smaller model"
        )
        batch.fail(error, *batch.pending)


def _explain(source: Path, by: signal.Signals) -> Av2tsamError:
    if by.name in CRASHES:
        return MediaError(
            f"{source}: crashed a decoder or encoder ({by.name}), so it is probably damaged; copy "
            "it again, or re-encode it"
        )
    return Av2tsamError(
        f"{source}: the process was killed ({by.name}) while working on it, perhaps because memory "
        "ran out; free memory, or use a smaller `batch_size`"
    )
