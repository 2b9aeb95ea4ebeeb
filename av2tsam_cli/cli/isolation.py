"""Process the inputs of a command in a child process, so that a crash does not end the command.

Decoders are written in C, and a damaged or hostile file can make one write to memory that it does
not own. The system then kills the whole process, without an error that Python could catch. So the
process that the user started only waits. If its child crashes, it reports the input, removes
unfinished outputs, and starts another child for the remaining inputs.

Only on Linux: other systems cannot fork, cannot fork safely, or let a child run on when its parent
is killed. The child is forked before torch and FFmpeg are imported, because their threads would not
exist in the child.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from av2tsam_cli.cli.batch import Batch
from av2tsam_cli.cli.console import READER_ENDED
from av2tsam_cli.errors import Av2tsamError, Interrupted, UsageError
from av2tsam_cli.files import remove_newly_dead_parts
from av2tsam_cli.signals import INTERRUPTIONS, explain_death, handle_signals

if TYPE_CHECKING:  # importing it takes 9 ms, and few commands need it
    from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>

T = TypeVar("T")

_allowed = threading.Event()


def allow_isolation() -> None:
    """Allow this process to fork, because it only runs the command line."""
    _allowed.set()


def run_isolated(
    batch: Batch,
    work: Callable[[], int],
    *,
    outs: Sequence[Path],
    prepare: Callable[[int], None] = lambda _: None,
) -> int:
    """Process the inputs of a batch in child processes; a crash only affects one input.

    Args:
        batch: The inputs. `Batch.attempt` records the current one. If there are several shares,
            each has its own process.
        work: Processes the pending inputs of the batch and returns the exit code.
        outs: The files and folders that outputs are written to.
        prepare: Called in each process before `work`, with the index of its share.

    Raises:
        UsageError: There are several shares, and this system cannot fork.
        SystemExit: In the waiting process, with the exit code; the children have reported the rest.
    """
    with batch.interruptible():
        if not _allowed.is_set() or sys.platform != "linux" or threading.active_count() > 1:
            if batch.shares > 1:
                raise UsageError("`devices` above 1: only supported by the command line on Linux")
            return work()
        missing = [folder for out in outs for folder in (out, *out.parents) if not folder.exists()]
        batch.open_lock()
        with ExitStack() as parent_only:
            children = _Children()
            parent_only.enter_context(handle_signals(children.forward_signal))
            shares = list(range(batch.shares))
            while children.shares or (shares and not children.interrupted):
                if shares and not children.interrupted:
                    share = shares.pop()
                    if children.fork(share, parent_only):
                        batch.take_share(share)
                        if batch.console.debug:
                            faulthandler.enable()  # a crash then prints where it happened
                        prepare(share)
                        return _work_quietly(work) if share else work()
                    continue
                share, crash = children.wait()
                if crash is None or children.interrupted:
                    continue
                batch.take_share(share)
                batch.console.remove_bar()
                folders = [folder for out in outs for folder in (out, out.parent)]
                _remove_unfinished(folders, [] if children.shares else missing)
                _report(batch, crash)
                shares += [share] if batch.pending else []
                batch.take_share(None)
        if children.interrupted and (children.killed or batch.pending):
            raise KeyboardInterrupt
        raise SystemExit(_combined_code([*children.codes, batch.exit_code]))


def run_in_child(work: Callable[[], T]) -> T:
    """Call a function in a child process and return its result.

    Use this for a library that starts threads, because this process could not fork safely
    afterwards. The result, or the error that the function raises, must be picklable.

    Raises:
        Av2tsamError: The child process died.
    """
    if not _allowed.is_set() or sys.platform != "linux":
        return work()
    from multiprocessing import get_context

    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(work, sender, os.getpid()), daemon=True)
    with ExitStack() as end_child:
        with _delayed_signals():
            child.start()
            end_child.callback(child.join)
            end_child.callback(child.kill)
        sender.close()
        try:
            value, error = receiver.recv()
        except EOFError:
            raise Av2tsamError("the process that listed the inputs was killed; try again") from None
    if error is not None:
        raise error
    return cast("T", value)


def _send(work: Callable[[], T], sender: "Connection[object, object]", parent: int) -> None:
    """Send the result of a function, or the error that it raises."""
    _end_with(parent)
    for number in INTERRUPTIONS:  # the parent handles them and kills this process
        signal.signal(number, signal.SIG_IGN)
    try:
        sender.send((work(), None))
    except Exception as error:  # noqa: BLE001 - raised in the parent
        sender.send((None, error))


def _work_quietly(work: Callable[[], int]) -> int:
    """Process a share other than the first, without reporting usage errors a second time."""
    try:
        return work()
    except UsageError as error:
        return error.exit_code  # the process of the first share reports it


class _Children:
    """The child processes."""

    def __init__(self) -> None:
        self.shares: dict[int, int] = {}
        """The share of each running process."""
        self.codes: list[int] = []
        """The exit codes of the processes that have ended."""
        self.killed = False
        """Whether a process was killed after an interruption, instead of ending by itself."""
        self.interrupted = False
        """Whether this process received a signal that interrupts the command."""

    def forward_signal(self, number: int) -> None:
        """Send a signal to all processes, so that they remove their unfinished outputs."""
        self.interrupted = True
        for child in self.shares:
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def fork(self, share: int, parent_only: ExitStack) -> bool:
        """Fork a process for a share of the inputs; return True in the process that does the work.

        If the system does not allow another process, this one does the work.

        Args:
            share: The index of the share.
            parent_only: What the new process must close, such as signal handlers.
        """
        sys.stdout.flush()  # or both processes would write what is in the buffers
        sys.stderr.flush()
        parent = os.getpid()
        with _delayed_signals():  # until each process has its own handlers
            if self.interrupted:
                return False
            try:
                child = os.fork()
            except OSError:
                if self.shares:
                    raise
                child = None
            if child:
                self.shares[child] = share
            else:
                parent_only.close()
            if child == 0:
                _end_with(parent)
        return not child

    def wait(self) -> tuple[int, signal.Signals | None]:
        """Wait until a process ends; return its share, and the signal if one ended it."""
        child, status = os.wait()
        share, code = self.shares.pop(child), os.waitstatus_to_exitcode(status)
        if code < 0:
            self.killed |= self.interrupted
            return share, signal.Signals(-code)
        self.codes.append(code)
        return share, None


@contextmanager
def _delayed_signals() -> Iterator[None]:
    """Delay signals that interrupt a command until the end of the block."""
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _combined_code(codes: Sequence[int]) -> int:
    """Return 0 if nothing failed, the code that all failures share, or 1 if they differ."""
    failures = set(codes) - {0}
    for ended in (Interrupted.exit_code, READER_ENDED):
        if ended in failures:
            return ended
    return min(failures, default=0) if len(failures) < 2 else Av2tsamError.exit_code


def _end_with(parent: int) -> None:
    """Let the system kill this process when its parent ends, even if the parent is killed."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has already ended
        os.kill(os.getpid(), signal.SIGKILL)


def _remove_unfinished(folders: list[Path], missing: list[Path]) -> None:
    """Remove unfinished outputs of a dead child, and empty folders that did not exist before."""
    remove_newly_dead_parts(folders)
    for folder in sorted(missing, key=lambda each: -len(each.parts)):
        with suppress(OSError):  # it is not empty, or was not created
            folder.rmdir()


def _report(batch: Batch, by: signal.Signals) -> None:
    """Report that a signal killed the child: at the current input, or else before any input."""
    if batch.active is not None:
        batch.fail(explain_death(batch.active, by), batch.active)
    elif batch.pending:
        error = Av2tsamError(
            f"{batch.pending[0]}: the process was ended ({by.name}) before any input was read, "
            "perhaps because memory ran out; free memory, or use a smaller model"
        )
        batch.fail(error, *batch.pending)
