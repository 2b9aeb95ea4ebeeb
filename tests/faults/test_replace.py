"""Replacing a file or a folder, with a SIGKILL before each step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="knows dead processes on Linux")

REPLACE = """
import json, os, sys, traceback
from pathlib import Path
from av2tsam_cli.files import atomic_file, atomic_folder
from tests.faults.steps import die_at_step

folder, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "folder without exchange":
    sys.platform = "a system that cannot exchange names"

def write(name, text):
    if kind == "file":
        with atomic_file(folder / name) as part:
            part.write_text(text)
    else:
        with atomic_folder(folder / name) as part:
            for file in "ab":
                (part / file).write_text(text)

def read(name):
    path = folder / name
    if path.is_dir():
        return sorted(file.read_text() for file in path.iterdir())
    return [path.read_text()] * 2 if path.exists() else None

def in_child(*calls):
    if pid := os.fork():
        return os.waitpid(pid, 0)[1] == 0
    try:
        for function, *arguments in calls:
            function(*arguments)
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)

finished, step = False, 0
while not finished:
    in_child((write, "target", "old"))
    finished = in_child((die_at_step, step, folder), (write, "target", "new"))
    found, names = read("target"), os.listdir(folder)
    in_child((write, "next", "old"))
    print(json.dumps([found, names, read("target"), os.listdir(folder)]))
    step += 1
"""
"""Prints the contents of the target and its folder after each kill, and after the next run."""


@pytest.mark.parametrize("kind", ["file", "folder", "folder without exchange"])
def test_the_old_result_or_the_new_one_is_there_whenever_a_run_is_killed(
    tmp_path: Path, kind: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPLACE, str(tmp_path), kind],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert not done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) > (2 if kind == "file" else 6)  # kills; the last run was not killed
    old, new = ["old"] * 2, ["new"] * 2
    if kind != "folder without exchange":
        assert all(found in (old, new) for found, *_ in runs)
    assert any(len(names) > 1 for _, names, *_ in runs)
    for _, _, after, names in runs:
        assert after in (old, new)
        assert sorted(names) == ["next", "target"]
    assert runs[0][0] == old
    assert runs[-1][0] == new
