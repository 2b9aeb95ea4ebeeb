"""The command line: `python -m av2tsam_cli`, and the console script `av2tsam`."""

import os
import sys
from collections.abc import Sequence

from av2tsam_cli.process import open_closed_streams, tune_process


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments after `av2tsam`; None for those of this process.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage error or missing input, 3 unreadable media or
        data, 4 weights missing or corrupted, 130 interrupted, 141 the reader of stdout ended.
    """
    from av2tsam_cli.cli.app import run_command

    if argv is None:
        from av2tsam_cli.cli.isolation import allow_isolation

        open_closed_streams()
        tune_process()
        allow_isolation()
    code = run_command(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _exit_without_waiting(code)
    return code


def _exit_without_waiting(code: int) -> None:
    """End the process now if a thread is still computing a batch that is no longer needed.

    All outputs are complete or removed by then; a full-size network could take another minute.
    Threads of Ray can crash Python while it ends, which would replace the exit code.
    """
    threads = sys.modules.get("av2tsam_cli.threads")  # absent if no thread was ever started
    if "ray" in sys.modules or (threads is not None and threads.still_running()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
