"""A child process that crashes, hangs or loses its parent, with real signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from av2tsam_cli.cluster.child import Child, Setup
from av2tsam_cli.cluster.split import CutTask
from av2tsam_cli.cluster.tasks import Task
from av2tsam_cli.errors import MediaError, WeightsError
from av2tsam_cli.job import Input, SegmentJob
from av2tsam_cli.options import ModelOptions
from av2tsam_cli.segment_options import SegmentOptions

SAMPLE = Path(__file__).parents[2] / "sample_media" / "duet.mp4"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="dead processes are known on Linux")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job") / "out"


@pytest.fixture(scope="module")
def child(out: Path) -> Iterator[Child]:
    """One child for all tests, because loading the model is slow."""
    options = SegmentOptions(format="masks", start=4.0, end=4.4)
    job = SegmentJob(out, options, ModelOptions("nano", "cpu"))
    child = Child(Setup(job, timeout_s=300.0))
    yield child
    child.close()


def task(name: str = "clip", source: Path = SAMPLE) -> Task:
    return Task(Input(source, Path(name)))


@contextmanager
def sending(out: Path, number: signal.Signals) -> Iterator[None]:
    """Send a signal to the process that starts to write to a folder while the block runs."""
    ended = threading.Event()

    def wait_and_send() -> None:
        while not ended.wait(0.002):
            with suppress(FileNotFoundError):  # a folder was removed while it was listed
                if parts := list(out.glob("*/.av2tsam-*.part")):
                    os.kill(int(parts[0].name.split("-")[3]), number)
                    return

    thread = threading.Thread(target=wait_and_send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_errors_and_notes_come_back(child: Child, out: Path, tmp_path: Path) -> None:
    missing = child.run(task(source=tmp_path / "missing.mp4"))
    assert (missing.status, missing.ends_job) == ("failed", False)
    assert str(missing.error) == f"{tmp_path}/missing.mp4: file not found; check the path"
    done = child.run(task("notes/clip"))
    assert done.result is not None
    [(_, note)] = done.notes
    assert note.startswith(f"{out}/notes/clip: 10 frames in ")


def test_an_attempt_that_was_lost_when_it_was_complete_is_done_again(child: Child) -> None:
    assert child.run(task("again/clip")).status == "done"
    assert "already exists" in str(child.run(task("again/clip")).error)
    assert child.run(task("again/clip"), lost=1).status == "done"
    assert "the worker was lost 3 times" in str(child.run(task("again/clip"), lost=3).error)


def test_parts_are_joined_again_if_a_worker_was_lost_after_it_had_joined_them(
    child: Child, out: Path
) -> None:
    source, folder = Input(SAMPLE, Path("parts/clip")), out / "parts" / "work"
    [part] = child.run(CutTask(source, seconds=5, folder=folder)).value
    for lost in (0, 1):
        segmented = child.run(part, lost)
        assert segmented.error is None
        joined = child.run(part.join({0: segmented.value}), lost)
        assert (joined.error, joined.status) == (None, "done")


def test_after_a_crash_an_input_is_tried_again(child: Child, out: Path) -> None:
    with sending(out, signal.SIGKILL):
        outcome = child.run(task("crash/clip"))
    assert (outcome.status, outcome.outputs) == ("done", (out / "crash" / "clip",))
    assert len(list((out / "crash" / "clip").glob("*.png"))) == 10


def test_the_last_crash_is_explained(child: Child, out: Path) -> None:
    with sending(out, signal.SIGSEGV):
        outcome = child.run(task("crashes/clip"), lost=2)
    assert isinstance(outcome.error, MediaError)
    assert str(outcome.error).startswith(f"{SAMPLE}: crashed a decoder or encoder (SIGSEGV)")
    assert not list((out / "crashes").iterdir())


def test_an_input_that_hangs_is_given_up(child: Child, out: Path) -> None:
    impatient = Child(replace(child.setup, timeout_s=5.0))
    with sending(out, signal.SIGSTOP):
        outcome = impatient.run(task("hangs/clip"))
    impatient.close()
    assert str(outcome.error) == (
        f"{SAMPLE}: stopped after 5 s; raise `timeout_per_item`, or check whether the file is "
        "damaged"
    )
    assert not list(out.glob("hangs/*"))


def test_a_model_that_cannot_be_loaded_ends_the_job(tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"bad")
    child = Child(Setup(SegmentJob(tmp_path, SegmentOptions(), ModelOptions(str(bad)))))
    outcome = child.run(task())
    assert outcome.ends_job
    assert isinstance(outcome.error, WeightsError)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "from av2tsam_cli.cluster.child import Child, Setup\n"
        "from av2tsam_cli.cluster.tasks import Task\n"
        "from av2tsam_cli.job import Input, SegmentJob\n"
        "from av2tsam_cli.options import ModelOptions\n"
        "from av2tsam_cli.segment_options import SegmentOptions\n"
        "out = Path(sys.argv[1])\n"
        "job = SegmentJob(out, SegmentOptions(format='masks'), ModelOptions('nano', 'cpu'))\n"
        "def kill():\n"
        "    while True:\n"
        "        try:\n"
        "            if list(out.glob('.av2tsam-*.part/000003.png')): break\n"
        "        except FileNotFoundError: pass\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "threading.Thread(target=kill).start()\n"
        f"Child(Setup(job)).run(Task(Input(Path({str(SAMPLE)!r}), Path('clip'))))\n"
    )
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-c", script, out], check=False)  # noqa: S603 - ours
    end_s = time.monotonic() + 20
    while (left := list(out.glob("*"))) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not left  # it removed what was unfinished
