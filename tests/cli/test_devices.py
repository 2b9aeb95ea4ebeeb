"""`segment --devices`."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.cli.devices import VISIBLE, assign_devices
from av2tsam_cli.errors import UsageError


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")
def test_two_processes_give_the_results_of_one(
    tiny_model: Path, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    clips = [make_clip(f"{k}.mp4", seconds=0.2) for k in range(3)]
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"junk")

    def run(devices: int) -> tuple[int, dict[str, object]]:
        words = ["segment", *clips, junk, "-o", tmp_path / f"out{devices}", "-f", "masks"]
        words += ["-m", tiny_model, "--text", "dog", "--json", "-q", "--devices", devices]
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "av2tsam_cli", *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr.count("\n") == 1
        records = map(json.loads, done.stdout.splitlines())
        return done.returncode, {each["input"]: each.get("frames") for each in records}

    code, frames = run(2)
    assert code == 3
    assert frames == {**{str(clip): 5 for clip in clips}, str(junk): None}
    assert run(1) == (code, frames)
    assert sorted(path.name for path in (tmp_path / "out2").iterdir()) == ["0", "1", "2"]


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3, 5")
    assign_devices(2, "auto")(1)
    assert os.environ[VISIBLE] == "5"


def test_more_processes_than_gpus_are_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "3,5")
    with pytest.raises(UsageError, match="`devices` 3: this machine has only 2"):
        assign_devices(3, "auto")
    monkeypatch.setenv(VISIBLE, "")
    with pytest.raises(UsageError, match="`devices` 2: this machine has only 1"):
        assign_devices(2, "mps")


def test_python_programs_are_not_forked(
    make_clip: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [str(make_clip(f"{k}.mp4", seconds=0.2)) for k in range(2)]
    words = ["segment", *clips, "-o", str(tmp_path / "out"), "-f", "masks", "--devices", "2"]
    assert main([*words, "--device", "cpu"]) == 2
    assert "--devices above 1: only supported by the command line on Linux" in (
        capsys.readouterr().err
    )
