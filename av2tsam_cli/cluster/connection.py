"""Connect to Ray: started on this machine, or a cluster."""

import io
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any, TextIO, cast

from av2tsam_cli.cluster.resources import Machine
from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.signals import INTERRUPTIONS, recorded_signals

LOCAL, AUTO = "local", "auto"
"""Addresses: Ray on this machine, which ends with the command, and the cluster that this machine
has joined."""
CONNECT_TIMEOUT_S = 10.0
"""Seconds to wait for a connection to a cluster."""
OBJECT_STORE_BYTES = 200 << 20
"""Shared memory of Ray on this machine; tasks and outcomes are small."""


def require_ray() -> None:
    """Check that Ray is installed.

    Raises:
        Av2tsamError: It is not.
    """
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise Av2tsamError("`ray` needs Ray Data; install it with: pip install 'av2tsam[ray]'")


@contextmanager
def connected(address: str, cpus: int) -> Iterator[Callable[[], None]]:
    """Start Ray on this machine, or connect to a cluster, while the block runs.

    This changes global settings of the process, so only the command line uses it.

    Args:
        address: `local`, `auto`, `HOST:PORT` or `ray://HOST:PORT`.
        cpus: CPUs that the workers need if Ray is started; may be more than the machine has.

    Yields:
        A function that raises KeyboardInterrupt if a signal has arrived, for the case that Ray
        dropped the exception of its handler.

    Raises:
        Av2tsamError: Ray cannot be started or reached.
    """
    with recorded_signals() as received:

        def check_interrupted() -> None:
            if received:
                raise KeyboardInterrupt

        with _started(address, cpus, check_interrupted):
            check_interrupted()
            yield check_interrupted


@contextmanager
def _started(address: str, cpus: int, check_interrupted: Callable[[], None]) -> Iterator[None]:
    """Start Ray or connect to it while the block runs; see `connected`."""
    import ray

    # The outcomes report errors better than Ray's logs. Its usage statistics are turned off.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

    options: dict[str, Any] = {}
    if address == LOCAL:
        options = {
            "num_cpus": max(cpus, os.cpu_count() or 1),
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    try:
        if address not in {LOCAL, AUTO}:  # Ray itself would keep trying for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
        # Ray reports that its logs are turned off. It would also let workers import Python files
        # from the current folder, which may be anybody's.
        with _stderr_muted(), _handlers_kept(), chdir(os.sep):
            ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except SystemExit:  # raised by Ray's handler for SIGTERM
        raise KeyboardInterrupt from None
    except (OSError, RuntimeError, ValueError, TimeoutError) as error:
        check_interrupted()
        reason = "none is running" if address == AUTO else " ".join(str(error).split())
        if "version mismatch" in reason.lower():
            raise Av2tsamError(
                f"`ray` {address}: uses other versions ({reason}); install those of the cluster"
            ) from error
        raise Av2tsamError(
            f"`ray` {address}: cannot be reached ({reason}); start Ray there with 'ray start', "
            "check the address, or set RAY_AUTH_MODE=token if it requires a token"
        ) from error
    try:
        quiet_data()
        with redirect_stdout(cast("TextIO", _OneThread(sys.stdout))):
            yield
    except ray.exceptions.RayError as error:
        check_interrupted()
        *_, reason = str(error).strip().splitlines()
        raise Av2tsamError(
            f"`ray` {address}: failed ({reason}); check that av2tsam is installed on all machines"
        ) from error
    finally:
        with redirect_stdout(io.StringIO()):  # Ray would print remaining errors here
            ray.shutdown()


class _OneThread:
    """A stream for one thread only, because Ray prints errors to stdout from another thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.current_thread()

    def write(self, text: str) -> int:
        """Write a text, if called from that thread."""
        return self._stream.write(text) if threading.current_thread() is self._thread else len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore signal handlers at the end of the block; Ray replaces the one for SIGTERM."""
    handlers = {number: signal.getsignal(number) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _stderr_muted() -> Iterator[None]:
    """Discard what is written to stderr while the block runs, including by C libraries."""
    original = os.dup(2)
    with open(os.devnull, "wb") as devnull:  # noqa: PTH123 - not a path of the user
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


def quiet_data() -> None:
    """Make Ray Data print nothing, and continue without the tasks of workers that are lost."""
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1


def list_machines() -> list[Machine]:
    """Return the machines of the cluster, or this one."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in found]
