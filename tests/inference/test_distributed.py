"""The processes that share a piece of work."""

import subprocess
import sys
from pathlib import Path

SHARED_WORK = """
import atexit
from pathlib import Path
import torch

folder = Path(__file__).parent
atexit.register(  # the first to be registered is the last to be called
    lambda: (folder / f"end-{processes.rank}").write_text(str(torch.distributed.is_initialized()))
)
from av2tsam_cli.inference.distributed import start_processes

processes = start_processes("cpu", 2)
assert processes.gather(processes.rank) == [0, 1]
"""


def test_the_processes_part_before_python_ends(tmp_path: Path) -> None:
    script = tmp_path / "shared_work.py"
    script.write_text(SHARED_WORK)
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"end-{rank}").read_text() for rank in (0, 1)] == ["False", "False"]
