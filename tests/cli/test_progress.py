"""Progress as a bar, as lines and as JSON."""

import itertools
import json
import sys
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from av2tsam_cli.__main__ import main
from av2tsam_cli.cli import console as console_module
from av2tsam_cli.cli.console import Console
from av2tsam_cli.cli.progress import BatchProgress, Progress, clock, shorten
from av2tsam_cli.options import Messages

NAMES = ("a.mp4", "x" * 300 + ".mp4", "猫" * 90 + ".mp4", "👨‍👩‍👧" * 40, "e\u0301" * 200, "")


def batch_of(totals: list[float | None], files: int | None = None) -> BatchProgress:
    paths = [Path(f"{k}.mp4") for k in range(len(totals))]
    numbers = {Path(f"{k}.mp4"): k + 1 for k in range(files or len(totals))}
    return BatchProgress(numbers, dict(zip(paths, totals, strict=True)))


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances by one second each time it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_long_name_leaves_room_for_the_bar_and_the_numbers(name: str, width: int) -> None:
    batch = batch_of([500.0, None, 400.0], files=5_000)
    batch.start(Path("2.mp4"))
    progress = Progress(Path(name), 500, "frames", batch)
    progress.update(120)
    line = progress.line(width, name)
    assert cell_len(line) <= width
    assert "file 3 of 5,000  " in line
    assert "━" in line
    assert "120/500" in line
    assert "  all " in line
    assert line.count("━") + line.count("─") >= 5


def test_names_are_shortened_in_the_middle() -> None:
    assert shorten("short.mp4", 9) == "short.mp4"
    assert shorten("holiday-in-the-alps-2024.mp4", 13) == "holida…24.mp4"
    assert shorten("猫猫猫猫猫猫.mp4", 9) == "猫猫….mp4"
    assert shorten("abc", 1) == "…"
    assert shorten("abc", 0) == ""


@pytest.mark.usefixtures("seconds")
def test_the_time_left_for_all_counts_what_is_known_of_each_input() -> None:
    batch = batch_of([100.0, 300.0, None])
    batch.start(Path("0.mp4"))  # at 0 s
    assert batch.left_s(0, 100) is None
    # 50 in 1 s: 50 of this one are left, 300 of the next, and the mean, 200, of the last.
    assert batch.left_s(50, 100) == pytest.approx((50 + 300 + 200) / 50)
    batch.finish(100)
    batch.start(Path("1.mp4"))
    assert batch.left_s(100, 300) == pytest.approx(2 * (200 + 200) / 200)
    batch.finish(300)
    batch.start(Path("2.mp4"))
    assert batch.left_s(400, None) == 0


@pytest.mark.usefixtures("seconds")
def test_the_time_left_for_all_follows_what_becomes_known_of_later_inputs() -> None:
    batch = batch_of([None, None, None, None])
    paths = [Path(f"{k}.mp4") for k in range(4)]
    batch.expect(paths[:2], {paths[0]: 100.0})  # the second is skipped
    batch.start(paths[0])
    assert batch.left_s(50, 100) == pytest.approx((50 + 2 * 100) / 50)
    batch.expect(paths[2:], {paths[2]: 20.0, paths[3]: 30.0})
    assert batch.left_s(50, 100) == pytest.approx(2 * (50 + 20 + 30) / 50)


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-:--"), (5.4, "0:05"), (754, "12:34"), (10_930, "3:02:10")]
)
def test_durations_are_written_as_a_clock(value: float | None, text: str) -> None:
    assert clock(value) == text


def test_without_a_terminal_a_line_is_printed_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(messages: Messages) -> list[str]:
        console = Console(messages)
        for _ in range(2):  # inputs of the same command share the interval
            with console.progress("a.mp4", 4) as update:
                for done in range(5):
                    if update is not None:
                        update(done)
        return capsys.readouterr().err.splitlines()

    assert lines(Messages()) == []
    monkeypatch.setattr(console_module, "LINE_EVERY_S", 0.0)
    shown = lines(Messages())
    assert len(shown) == 10
    assert shown[2].startswith("av2tsam: a.mp4: 2 of 4 frames, ")
    assert shown[2].endswith(" left")
    assert lines(Messages(quiet=True)) == []
    assert lines(Messages(progress="none")) == []


def test_progress_as_json_has_its_keys_and_keeps_the_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    batch = batch_of([100.0, None])
    with Console(Messages(quiet=True, progress="json")).progress(
        Path("in\x1b/0.mp4"), 100, batch=BatchProgress({Path("in\x1b/0.mp4"): 1}, {})
    ) as update:
        assert update is not None
        for done in range(100):
            update(done + 1)
    first, *between, last = map(json.loads, capsys.readouterr().err.splitlines())
    assert len(between) < 10
    assert first == {
        "progress": "in\x1b/0.mp4",
        "file": 1,
        "files": 1,
        "unit": "frames",
        "done": 0,
        "total": 100,
        "per_second": None,
        "seconds_left": None,
        "seconds_left_all": None,
    }
    assert last["done"] == 100
    assert last["seconds_left"] == 0
    assert batch.number == 0


def test_segment_numbers_the_inputs_of_a_batch(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_clip: object
) -> None:
    clips = [make_clip(f"{k}.mp4", seconds=0.2) for k in range(2)]  # type: ignore[operator]
    words = ["segment", clips[0], tmp_path / "none.mp4", clips[1], "-o", tmp_path / "out"]
    words += ["-f", "masks", "-m", tiny_model, "-q", "--progress", "json"]
    assert main(list(map(str, words))) == 2
    found = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[0] == "{"]
    assert {(each["progress"], each["file"], each["files"]) for each in found} == {
        (str(clips[0]), 1, 3),
        (str(clips[1]), 3, 3),
    }
    assert found[-1]["done"] == found[-1]["total"] == 5
    assert found[-1]["seconds_left_all"] == 0


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-q", "-v"]) == 2
    assert "--quiet and --verbose exclude each other" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _is_no_terminal() -> None:
    assert not sys.stderr.isatty()
