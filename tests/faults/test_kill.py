"""A sample of `python -m tests.faults.kill`, which covers all formats."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="knows dead processes on Linux")
@pytest.mark.parametrize("words", [("--jobs", "masks", "--runs", "1", "--signals", "KILL", "TERM")])
def test_killed_and_interrupted_runs_leave_the_old_result_or_the_new_one(
    words: tuple[str, ...],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kill", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.count("|") for line in done.stdout.splitlines()] == [10] * 4
