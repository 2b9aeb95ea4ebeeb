"""A sample of the fuzzer of media files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer forks")
def test_no_header_and_no_damage_crashes_or_fills_the_memory() -> None:
    """All files of `declared.py`, then a damaged file of every other kind of clip."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.media", "--seed", "1", "--count", "60"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["files"] == 60
