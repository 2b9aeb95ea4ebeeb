"""Processes that share work: start, communication, end, and the log level they leave."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from av2tsam_cli.errors import Av2tsamError, UsageError
from av2tsam_cli.inference.distributed import Processes, start_fabric, start_processes

SHARED_WORK = """
import atexit
from pathlib import Path
import torch
from av2tsam_cli.errors import MediaError, UsageError
from av2tsam_cli.inference import distributed
from av2tsam_cli.inference.distributed import ConnectionLost, OtherProcessFailed, start_processes

folder = Path(__file__).parent
atexit.register(  # registered first, so called last
    lambda: (folder / f"end-{processes.rank}").write_text(str(torch.distributed.is_initialized()))
)
distributed.CONTACT_S = 0.0
processes = start_processes("cpu", 2)
assert start_processes("cpu", 2) == processes
assert processes.gather(processes.rank) == [0, 1]
assert processes.from_first(lambda: processes.rank) == 0

with processes.together() as keep_contact:  # the first process has nothing to do but wait
    for _ in range(10 * processes.rank):
        keep_contact()
    if processes.rank == 1:
        (folder / "finished").touch()
assert (folder / "finished").exists()

def message(kind, work):
    try:
        work()
    except kind as error:
        return str(error)

def read_data():
    with processes.together():
        if processes.rank == 1:
            raise MediaError("/data: not found")

text = message(MediaError if processes.rank == 1 else OtherProcessFailed, read_data)
assert text.endswith("/data: not found") and ("process 1 on " in text) == processes.first, text
text = message(UsageError, lambda: processes.check_same({"`lr`": processes.rank, "`seed`": 1}))
assert text.startswith("`lr`: differs between process 0 on "), text
if not processes.first:
    raise SystemExit
text = message(ConnectionLost, lambda: processes.gather(0))
assert text.startswith("lost the connection to another process ("), text
"""

SLURM = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}


def test_two_processes_agree_wait_and_fail_together(tmp_path: Path) -> None:
    script = tmp_path / "shared_work.py"
    script.write_text(SHARED_WORK)
    done = subprocess.run(  # noqa: S603 - this interpreter and our own code
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | SLURM,  # one task that starts a process per device
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"end-{rank}").read_text() for rank in (0, 1)] == ["False", "False"]


def test_machines_with_different_numbers_of_processes_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torchrun = {
        "TORCHELASTIC_RUN_ID": "7",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "2",
        "WORLD_SIZE": "3",
    }
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="different numbers of processes"):
        start_processes("cpu", 1)


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
