"""Run the command line: `python -m av2tsam_cli`, and the console script `av2tsam`."""

import os
import sys
from collections.abc import Sequence

from av2tsam_cli.process import tune_process


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The words after `av2tsam`; those of this process where None.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage, 3 unreadable media or data, 4 weights missing or
        damaged, 130 interrupted.
    """
    from av2tsam_cli.cli.app import run_command

    if argv is None:
        tune_process()
    code = run_command(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _leave_long_steps_behind(code)
    return code


def _leave_long_steps_behind(code: int) -> None:
    """End the process at once where a network is still in the middle of a batch that is not wanted.

    All that had to be tidied up has been; waiting for a full-size network could take a minute.
    """
    threads = sys.modules.get("av2tsam_cli.threads")  # not there: no stage was ever started
    if threads is not None and threads.still_running():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
