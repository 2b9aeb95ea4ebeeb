"""Ray workers on this machine, for the command line and for a Ray dataset."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import av2tsam
from av2tsam_cli.cluster.child import Setup
from av2tsam_cli.cluster.connection import connected
from av2tsam_cli.cluster.engine import run_tasks
from av2tsam_cli.cluster.resources import Resources
from av2tsam_cli.cluster.split import CutTask, parts_folder
from av2tsam_cli.cluster.tasks import Task
from av2tsam_cli.job import Input, SegmentJob
from av2tsam_cli.options import ModelOptions
from av2tsam_cli.segment_options import SegmentOptions
from tests.faults.workers import descendants, fingerprint, run

SAMPLE = Path(__file__).parents[2] / "sample_media" / "duet.mp4"
RESOURCES = Resources(workers=2, cpus=1, gpus=0)
OPTIONS = {"format": "masks", "start": 4.0, "end": 4.4}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="knows dead processes on Linux"),
    pytest.mark.filterwarnings("ignore:::ray"),  # Ray uses its own deprecated functions
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray 2.50 leaves files open
]


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with connected("local", 2):
        yield


def test_the_command_survives_broken_inputs_crashes_and_kills(tmp_path: Path) -> None:
    report = run(tmp_path, {"ok": 4, "broken": 1, "crash": 1}, workers=2, kills=1, timeout_s=300)
    assert not report.wrong
    assert report.sent >= 3  # SIGSEGV, and SIGKILL unless the run ends before
    assert [line for line in report.errors if "error" not in line and "frames/s" not in line] == []


def test_options_for_workers_need_ray() -> None:
    words = ["segment", SAMPLE, "-o", "out.mp4", "--workers", "2"]
    command = [sys.executable, "-m", "av2tsam_cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 2
    assert done.stderr == "av2tsam: error: --workers has no effect without --ray; set it too\n"


def test_a_signal_while_ray_starts_is_an_interruption() -> None:
    script = (
        "import signal\n"
        "from av2tsam_cli.cluster.connection import connected\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "try:\n"
        "    with connected('local', 1): print('started')\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starting:  # noqa: S603
        while not any("gcs_server" in words for _, words, _ in descendants(starting.pid)):
            assert starting.poll() is None
            time.sleep(0.01)
        starting.terminate()
        assert starting.communicate()[0] == "interrupted\n"
    assert starting.returncode == 0


@pytest.mark.usefixtures("ray")
def test_a_second_run_does_what_the_first_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcomes(*names: str) -> Iterator[tuple[str, str]]:
        job = SegmentJob(
            tmp_path, SegmentOptions(**OPTIONS), ModelOptions("nano", "cpu"), skip_existing=True
        )
        tasks = [Task(Input(SAMPLE, Path(name))) for name in names]
        for task, outcome in run_tasks(tasks, Setup(job), RESOURCES):
            yield str(task.source.name), outcome.status

    # Of very many inputs, several share a block; their outcomes are not kept until it is done.
    monkeypatch.setattr("av2tsam_cli.cluster.engine.MAX_BLOCKS", 1)
    first = outcomes("a", "b", "c", "d")
    done, status = next(first)
    assert status == "done"
    first.close()  # as after an interruption
    assert not list(tmp_path.glob(".av2tsam-*"))
    complete = {path.name for path in tmp_path.iterdir()}
    assert done in complete
    assert len(complete) < 4
    second = dict(outcomes("a", "b", "c", "d"))
    assert second == {
        name: "skipped" if name in complete else "done" for name in ("a", "b", "c", "d")
    }


@pytest.mark.usefixtures("ray")
def test_a_video_in_parts_gets_the_masks_of_one_piece(tmp_path: Path) -> None:
    options = SegmentOptions(format="masks", start=3.6, end=6.2, fps=5)
    job = SegmentJob(tmp_path / "out", options, ModelOptions("nano", "cpu"))
    source = Input(SAMPLE, Path("parts"))
    cut = CutTask(source, seconds=1, folder=parts_folder(job, source))
    [(_, analysed)] = run_tasks([cut], Setup(job), RESOURCES)
    assert len(analysed.value) == 4
    missing = Input(tmp_path / "missing.mp4", Path("missing"))
    first, *others = [replace(task, source=missing, folder=tmp_path) for task in analysed.value[:2]]
    tasks = [first, *analysed.value, *others]
    done = list(run_tasks(tasks, Setup(job), RESOURCES))
    for task, outcome in done:
        if task.source == missing:  # either it failed, or it was not tried and is not reported
            assert outcome.error is not None or outcome.value == ()
    outcomes = [outcome for task, outcome in done if task.source == source]
    [joined] = [outcome.result for outcome in outcomes if outcome.result is not None]
    assert joined.outputs == (tmp_path / "out" / "parts",)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parts"]

    whole = av2tsam.segment_video(
        SAMPLE, tmp_path, format="masks", start=3.6, end=6.2, fps=5, model="nano", device="cpu"
    )
    assert joined.frames == whole.frames == 65
    assert fingerprint(joined.outputs[0]) == fingerprint(whole.outputs[0])


@pytest.mark.usefixtures("ray")
def test_a_data_set_gets_columns_although_a_worker_is_killed(tmp_path: Path) -> None:
    from ray.data import from_items

    def kill_at_last_row() -> None:
        while not ((tmp_path / "one").is_dir() and list(tmp_path.glob(".av2tsam-*.part"))):
            time.sleep(0.005)
        [worker] = [each[2] for each in descendants(os.getpid()) if "cluster.child" in each[1]]
        os.kill(worker, signal.SIGKILL)

    link = tmp_path / "link.mp4"
    link.symlink_to(SAMPLE)
    rows = [
        {"video": str(SAMPLE), "label": 1, "to": "one"},
        {"video": str(tmp_path / "missing.mp4"), "label": 2, "to": "two"},
        {"video": str(link), "label": 3, "to": "three"},
    ]
    dataset = av2tsam.segment_dataset(
        from_items(rows, override_num_blocks=1),  # so that Ray does the first rows again
        tmp_path,
        path="video",
        name="to",
        workers=1,
        cpus_per_worker=1,
        device="cpu",
        model="nano",
        **OPTIONS,
    )
    threading.Thread(target=kill_at_last_row, daemon=True).start()
    one, two, three = sorted(dataset.take_all(), key=lambda row: row["label"])
    assert (one["status"], one["error"]) == ("done", "")
    assert one["output"] == str(tmp_path / "one")
    assert len(list((tmp_path / "three").glob("*.png"))) == json.loads(three["result"])["frames"]
    assert (two["status"], two["output"], two["result"]) == ("failed", "", "")
    assert two["error"] == f"{tmp_path}/missing.mp4: file not found; check the path"
