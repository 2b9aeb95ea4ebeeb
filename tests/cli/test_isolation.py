"""Inputs that end the process which works on them: crashes, kills and interruptions, all real."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MakeClip = Callable[..., Path]
Tone = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="crashes are isolated on Linux")

SCRIPT = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from av2tsam_cli.cli.batch import Batch
from av2tsam_cli.cli.console import Console
from av2tsam_cli.cli.isolation import allow_isolation, run_isolated
from av2tsam_cli.files import atomic_file
from av2tsam_cli.options import Messages

out, *inputs = map(Path, sys.argv[1:])
shares = 2 if out.name == "shared" else 1
batch = Batch(inputs, Console(Messages()), json=True, shares=shares)

def work():
    if out.name == "loading":
        os.kill(os.getpid(), signal.SIGSEGV)
    for source in batch.pending:
        batch.attempt(source, partial(process, source))
    if out.name == "ending":
        os.kill(os.getpid(), signal.SIGSEGV)
    return batch.exit_code

def process(source):
    with atomic_file(out / source.name) as part:
        part.write_text(str(os.getpid()))
        if source.name.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, source.name))
        if source.name == "sleep":
            os.write(1, b"started\\n")
            time.sleep(60)
    batch.finish(source, {"long": "x" * 100_000} if shares > 1 else {})

signal.signal(signal.SIGTERM, signal.default_int_handler)
allow_isolation()
try:
    code = run_isolated(batch, work, outs=[out])
except KeyboardInterrupt:
    code = 130
sys.exit(code)
"""
"""A command like `segment` that kills its own process where an input is named after a signal."""


def process(out: Path, *inputs: str) -> tuple[int, dict[str, int], list[str]]:
    """Run the script; return its exit code, those of the inputs, and the lines on stderr."""
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", SCRIPT, out, *inputs], capture_output=True, text=True, check=False
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    codes = {each["input"]: each.get("exit_code", 0) for each in records}
    assert len(codes) == len(records)
    return done.returncode, codes, done.stderr.splitlines()


def test_a_crash_costs_one_input(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, codes, (crash, kill) = process(out, "first", "SIGSEGV", "second", "SIGKILL", "third")
    assert codes == {"first": 0, "SIGSEGV": 3, "second": 0, "SIGKILL": 1, "third": 0}
    assert code == 1  # the codes of the failures differ
    assert crash == (
        "av2tsam: error: SIGSEGV: crashed a decoder or encoder (SIGSEGV), so it is probably "
        "damaged; copy it again, or re-encode it"
    )
    assert kill.startswith("av2tsam: error: SIGKILL: the process was killed (SIGKILL)")
    assert sorted(path.name for path in out.iterdir()) == ["first", "second", "third"]
    processes = {path.name: path.read_text() for path in out.iterdir()}
    assert len(set(processes.values())) == 3


def test_a_crash_at_the_last_input_leaves_nothing(tmp_path: Path) -> None:
    assert process(tmp_path / "new" / "out", "SIGABRT")[:2] == (3, {"SIGABRT": 3})
    assert not list(tmp_path.iterdir())


def test_a_crash_before_the_first_input_fails_all(tmp_path: Path) -> None:
    code, codes, (line,) = process(tmp_path / "loading", "first", "second")
    assert (code, codes) == (1, {"first": 1, "second": 1})
    assert "the process was ended (SIGSEGV) before any input was read" in line


def test_a_crash_after_the_last_input_changes_nothing(tmp_path: Path) -> None:
    assert process(tmp_path / "ending", "first") == (0, {"first": 0}, [])


def test_two_processes_share_the_inputs(tmp_path: Path) -> None:
    out = tmp_path / "shared"
    names = [f"{k}" for k in range(8)]
    assert process(out, *names) == (0, dict.fromkeys(names, 0), [])
    processes = [(out / name).read_text() for name in names]
    assert len(set(processes)) == 2
    assert len(set(processes[::2])) == 1


def test_a_crash_of_one_of_two_processes_costs_one_input(tmp_path: Path) -> None:
    out = tmp_path / "shared"
    code, codes, _ = process(out, "SIGSEGV", "1", "2", "3", "SIGBUS", "5", "6")
    assert codes == {"SIGSEGV": 3, "SIGBUS": 3, **dict.fromkeys("12356", 0)}
    assert code == 3
    assert sorted(path.name for path in out.iterdir()) == list("12356")


def test_an_interruption_ends_both_processes(tmp_path: Path) -> None:
    inputs = ["sleep", str(tmp_path / "sleep"), "third"]
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "shared"), *inputs]
    with subprocess.Popen(  # noqa: S603 - our own script
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == ["started\n"] * 2
        parent.send_signal(signal.SIGTERM)
        records = [json.loads(line) for line in parent.stdout]
    assert parent.returncode == 130
    assert [each["exit_code"] for each in records] == [130] * 3
    assert not list(tmp_path.glob("shared/.*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_goes_on_without_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    words = [sys.executable, "-c", SCRIPT, str(tmp_path), "sleep", "second"]
    with subprocess.Popen(  # noqa: S603 - our own script
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        (part,) = tmp_path.glob(".*.part")
        child = int(part.read_text())
        assert child != parent.pid
        parent.send_signal(number)
        while Path(f"/proc/{child}").exists():
            time.sleep(0.01)
        records = [json.loads(line) for line in parent.stdout]
    if number == signal.SIGTERM:
        assert parent.returncode == 130
        assert [each["exit_code"] for each in records] == [130, 130]
        assert not list(tmp_path.iterdir())


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


LIMITED = """
import resource, sys
from av2tsam_cli.__main__ import main
resource.setrlimit(resource.RLIMIT_CPU, (1, 100))  # less than it takes to import PyAV and torch
sys.exit(main())
"""


def test_segment_and_listen_report_a_killed_child(make_clip: MakeClip, tmp_path: Path) -> None:
    clip = make_clip()
    for words in (["segment", clip, "-o", tmp_path / "out.mp4"], ["listen", clip]):
        done = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", LIMITED, *map(str, words), "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert f"{clip}: the process was" in line
        assert "SIGXCPU" in line
        assert json.loads(done.stdout)["exit_code"] == 1
    assert list(tmp_path.iterdir()) == [clip]


@pytest.mark.slow
def test_segment_goes_on_after_a_crash_and_can_be_interrupted(
    make_clip: MakeClip, tone: Tone, tiny_model: Path, tmp_path: Path
) -> None:
    """Three videos: the first is finished, the second crashes, the third is interrupted."""
    names, out = ["first.mp4", "second.mp4", "third.mp4"], tmp_path / "out"
    make_clip(names[0], rate=4, sounds=[{"samples": tone(1.0)}])
    long = make_clip(names[1], seconds=40, sounds=[{"samples": tone(40.0)}])
    shutil.copy(long, tmp_path / names[2])
    words = ["segment", *names, "-o", "out", "-f", "masks", "--json", "--quiet"]
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "av2tsam_cli", *words, "--model", tiny_model],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        records = [json.loads(process.stdout.readline())]
        wait_for_masks(out)
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGSEGV)
        records.append(json.loads(process.stdout.readline()))
        wait_for_masks(out)
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate()
    records += [json.loads(line) for line in rest.splitlines()]
    assert [each["input"] for each in records] == names
    assert [each.get("exit_code", 0) for each in records] == [0, 3, 130]
    assert process.returncode == 130
    crash, interruption = err.splitlines()
    assert "second.mp4: crashed a decoder or encoder (SIGSEGV)" in crash
    assert "interrupted" in interruption
    assert [path.name for path in out.iterdir()] == ["first"]


def wait_for_masks(out: Path) -> None:
    """Wait until a process is writing masks of a video."""
    while not list(out.glob(".*.part/*.png")):
        time.sleep(0.02)


APART = """
import signal, sys, threading, time
from av2tsam_cli.cli.isolation import allow_isolation, run_in_child
from av2tsam_cli.errors import UsageError

def list_inputs():
    threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    if sys.argv[1] == "error":
        raise UsageError("nothing to list")
    if sys.argv[1] == "wait":
        print("started", flush=True)
        time.sleep(60)
    return ["a.mp4"]

allow_isolation()
try:
    print(run_in_child(list_inputs), threading.active_count())
except (UsageError, KeyboardInterrupt) as error:
    print(repr(error), threading.active_count())
"""
"""A function that starts a thread, as requests to a store do; a process with two cannot fork."""


@pytest.mark.parametrize(
    ("how", "printed"),
    [("list", "['a.mp4'] 1"), ("error", "UsageError('nothing to list') 1")],
)
def test_listing_inputs_starts_no_thread_here(how: str, printed: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", APART, how], capture_output=True, text=True, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (printed, "")


def test_listing_inputs_can_be_interrupted() -> None:
    # The sleep lets the signal arrive as early as it can: before the parent knows the child.
    slow = "import os, time; os.register_at_fork(after_in_parent=lambda: time.sleep(0.2))"
    for script in (APART, slow + APART):
        with subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", script, "wait"], stdout=subprocess.PIPE, text=True
        ) as listing:
            assert listing.stdout is not None
            assert listing.stdout.readline() == "started\n"
            listing.send_signal(signal.SIGINT)
            printed, _ = listing.communicate(timeout=120)
        assert printed == "KeyboardInterrupt() 1\n"
