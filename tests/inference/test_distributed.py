"""Processes that share work: start, communication, end, and the log level they leave."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.inference.distributed import Processes, start_fabric, start_processes

SHARED_WORK = """
import atexit
from pathlib import Path
import torch

folder = Path(__file__).parent
atexit.register(  # registered first, so called last
    lambda: (folder / f"end-{processes.rank}").write_text(str(torch.distributed.is_initialized()))
)
from av2tsam_cli.inference.distributed import start_processes

processes = start_processes("cpu", 2)
assert processes.gather(processes.rank) == [0, 1]
"""


def test_process_group_is_destroyed_before_python_exits(tmp_path: Path) -> None:
    script = tmp_path / "shared_work.py"
    script.write_text(SHARED_WORK)
    done = subprocess.run(  # noqa: S603 - this interpreter and our own code
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"end-{rank}").read_text() for rank in (0, 1)] == ["False", "False"]


def test_lightning_fabric_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av2tsam_cli.inference.distributed.find_spec", lambda _: None)
    assert start_processes("cpu", 1) == Processes()
    with pytest.raises(Av2tsamError, match=r"pip install 'av2tsam\[train\]'") as caught:
        start_processes("cpu", 2)
    assert caught.value.exit_code == 1


def test_log_level_of_lightning_fabric_is_restored() -> None:
    logger = logging.getLogger("lightning_fabric")
    start_fabric("cpu", 1)  # importing Fabric sets a level of its own
    logger.setLevel(logging.DEBUG)
    start_fabric("cpu", 1)
    assert logger.level == logging.DEBUG
