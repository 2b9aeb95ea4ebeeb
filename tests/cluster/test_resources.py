"""How many workers there are, and what each of them gets."""

import os
import sys
from pathlib import Path

import pytest

from av2tsam_cli.cluster.resources import (
    Machine,
    Resources,
    WorkerOptions,
    choose_resources,
    own_cores,
)
from av2tsam_cli.errors import UsageError


@pytest.mark.parametrize(
    ("options", "device", "machine", "expected"),
    [
        (WorkerOptions(), "auto", (16, 0), Resources(4, 4, 0)),
        (WorkerOptions(), "auto", (2, 0), Resources(1, 2, 0)),
        (WorkerOptions(), "auto", (96, 8), Resources(8, 12, 1)),
        (WorkerOptions(), "cpu", (96, 8), Resources(24, 4, 0)),
        (WorkerOptions(gpus_per_worker=0.5), "cuda", (64, 4), Resources(8, 8, 0.5)),
        (WorkerOptions(workers=2), "auto", (16, 0), Resources(2, 8, 0)),
        (WorkerOptions(cpus_per_worker=2), "auto", (16, 0), Resources(8, 2, 0)),
        (WorkerOptions(workers=3, cpus_per_worker=2), "auto", (2, 1), Resources(3, 2, 1)),
    ],
)
def test_workers_share_what_there_is(
    options: WorkerOptions, device: str, machine: tuple[int, int], expected: Resources
) -> None:
    assert choose_resources(options, device, [Machine(*machine)]) == expected


@pytest.mark.parametrize(
    ("options", "machines", "expected"),
    [
        (WorkerOptions(workers=1), [(16,), (8,)], Resources(1, 16, 0)),
        (WorkerOptions(workers=3), [(16,), (16,)], Resources(3, 8, 0)),
        (WorkerOptions(), [(16,), (96, 4), (96, 4)], Resources(8, 24, 1)),
        (WorkerOptions(gpus_per_worker=2), [(32, 3), (32, 3)], Resources(2, 32, 2)),
        (WorkerOptions(workers=8), [(96, 4)], Resources(8, 12, 1)),
    ],
)
def test_each_worker_fits_on_one_machine(
    options: WorkerOptions, machines: list[tuple[int, ...]], expected: Resources
) -> None:
    assert choose_resources(options, "auto", [Machine(*each) for each in machines]) == expected


def test_there_are_no_more_workers_than_inputs() -> None:
    chosen = choose_resources(WorkerOptions(workers=8), "auto", [Machine(16)], items=3)
    assert chosen == Resources(3, 5, 0)


@pytest.mark.parametrize(
    ("options", "device", "message"),
    [
        (WorkerOptions(gpus_per_worker=1), "auto", "Ray found no GPU"),
        (WorkerOptions(), "cuda", "Ray found no GPU"),
        (WorkerOptions(gpus_per_worker=1), "cpu", "`gpus_per_worker` has no effect"),
        (WorkerOptions(gpus_per_worker=0), "cuda", "`device` cuda needs GPUs"),
    ],
)
def test_gpus_that_are_missing_are_a_usage_error(
    options: WorkerOptions, device: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_resources(options, device, [Machine(16)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 0),
        ("cpus_per_worker", 0),
        ("gpus_per_worker", 1.5),
        ("gpus_per_worker", -1.0),
        ("timeout_per_item", 0.0),
        ("timeout_per_item", float("inf")),
    ],
)
def test_values_are_checked(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"`{name}` must be"):
        WorkerOptions(**{name: value})


@pytest.mark.skipif(sys.platform != "linux", reason="cores are assigned on Linux")
def test_workers_of_one_machine_have_different_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Workers of other tests and programs that run at the same time do not count.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one core")
    try:
        with own_cores(1):
            first = os.sched_getaffinity(0)
            os.sched_setaffinity(0, before)
            with own_cores(1):
                second = os.sched_getaffinity(0)
            os.sched_setaffinity(0, before)
            with own_cores(len(before)):  # not so many are free
                assert os.sched_getaffinity(0) == before
        assert len(first) == len(second) == 1
        assert first != second
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(sys.platform != "linux", reason="cores are assigned on Linux")
def test_cores_that_cannot_be_reserved_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"av2tsam-cores-{os.getuid()}").touch()  # so that no folder can be created
    before = os.sched_getaffinity(0)
    with own_cores(1):
        assert os.sched_getaffinity(0) == before
