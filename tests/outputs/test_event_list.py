"""From when until when sources are masked, read back from every format."""

import csv
import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import opentimelineio as otio
import pytest

from av2tsam_cli.errors import UsageError
from av2tsam_cli.outputs.edit_list import check_edit_list
from av2tsam_cli.outputs.event_list import EventList
from av2tsam_cli.values import Frame, MaskedFrame, SourceMasks

SOURCE = Path("somewhere/my duet.mp4")
DOG, BELL = "dog", "bell, <big>"
SEEN = [{DOG}, {DOG}, set(), {BELL}, {DOG, BELL}, {DOG}]
EXPECTED = [(DOG, 0, 2), (BELL, 3, 5), (DOG, 4, 6)]
"""What is in view in each frame, and the events in frames."""


def frames(rate: Fraction, *, named: bool = True) -> Iterable[MaskedFrame]:
    for index, seen in enumerate(SEEN):
        labels = np.zeros((8, 8), np.uint8)
        labels[:2] = 1 if DOG in seen else 0
        labels[4:] = 2 if BELL in seen else 0
        times = {"time_s": float(index / rate), "duration_s": float(1 / rate)}
        frame = Frame(np.zeros((8, 8, 3), np.uint8), index=index, **times)
        sources = SourceMasks((DOG, BELL), labels, (0.5, 0.75)) if named else None
        yield MaskedFrame(frame, labels > 0, "computed", sources, score=0.25 * (index % 2))


def written(path: Path, rate: Fraction, *, named: bool = True, timecode: str | None = None) -> Path:
    with EventList(path, source=SOURCE, rate=rate, timecode=timecode, overwrite=False) as writer:
        for masked in frames(rate, named=named):
            writer.write(masked)
    return path


def test_json_has_every_name_with_its_times_and_score(tmp_path: Path) -> None:
    found = json.loads(written(tmp_path / "e.json", Fraction(25)).read_text("utf-8"))
    assert found["input"] == str(SOURCE)
    assert found["events"] == [
        {
            "name": name,
            "start_s": pytest.approx(start / 25),
            "end_s": pytest.approx(end / 25),
            "score": 0.5 if name == DOG else 0.75,
        }
        for name, start, end in EXPECTED
    ]


def test_without_names_an_event_lasts_while_there_is_a_mask(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", Fraction(10), named=False)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [
        ("sound source", "0.000", "0.200", "0.125"),
        ("sound source", "0.300", "0.600", "0.167"),
    ]


@pytest.mark.parametrize(
    ("suffix", "start"), [(".srt", "1\n00:00:00,000"), (".vtt", "WEBVTT"), (".txt", "0.000000\t")]
)
def test_the_suffix_decides_which_text_is_written(tmp_path: Path, suffix: str, start: str) -> None:
    text = written(tmp_path / f"e{suffix}", Fraction(25)).read_text("utf-8")
    assert text.startswith(start)
    assert text.count(DOG) == 2


def spans(track: Any) -> list[tuple[str, float, float]]:
    return [
        (clip.name, clip.source_range.start_time.value, clip.source_range.duration.value)
        for clip in track.find_clips()
    ]


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30_000, 1001), Fraction(8)])
def test_otio_has_a_track_per_name_in_which_clips_keep_their_times(
    tmp_path: Path, rate: Fraction
) -> None:
    timeline = otio.adapters.read_from_file(str(written(tmp_path / "e.otio", rate)))
    assert [track.name for track in timeline.tracks] == [DOG, BELL]
    for track in timeline.tracks:
        expected = [event for event in EXPECTED if event[0] == track.name]
        assert spans(track) == [(name, start, end - start) for name, start, end in expected]
        for clip in track.find_clips():
            assert clip.range_in_parent().start_time == clip.source_range.start_time
            assert clip.media_reference.target_url.endswith("somewhere/my%20duet.mp4")
            assert clip.source_range.start_time.rate == float(rate)


@pytest.mark.parametrize(
    ("rate", "timecodes", "ratio"),
    [
        (Fraction(25), 25.0, 1),
        (Fraction(30_000, 1001), 30_000 / 1001, 1),
        (Fraction(8), 24.0, 3),
        (Fraction(15), 30.0, 2),
    ],
)
def test_an_edl_has_an_event_for_each_in_frames_for_which_there_are_timecodes(
    tmp_path: Path, rate: Fraction, timecodes: float, ratio: int
) -> None:
    path = written(tmp_path / "e.edl", rate)
    (track,) = otio.adapters.read_from_file(str(path), rate=timecodes).tracks
    assert spans(track) == [
        (name, start * ratio, (end - start) * ratio) for name, start, end in EXPECTED
    ]


@pytest.mark.parametrize("suffix", [".json", ".edl", ".otio"])
def test_nothing_is_masked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"e{suffix}"
    with EventList(path, source=SOURCE, rate=Fraction(25), overwrite=False):
        pass
    assert path.exists()


def test_edit_lists_need_optional_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("av2tsam_cli.outputs.edit_list.find_spec", lambda _: None)
    check_edit_list(Path("e.srt"))
    with pytest.raises(UsageError, match=r"e.edl: needs OpenTimelineIO; run: pip install"):
        check_edit_list(Path("e.edl"))


@pytest.mark.parametrize(
    ("rate", "timecode", "first"),
    [
        (Fraction(25), "01:00:00:10", 90_010),
        (Fraction(30_000, 1001), "00:10:00;00", 17_982),  # drop frame
        (Fraction(25), "00:10:00;00", 0),  # which does not exist at this rate
    ],
)
def test_edit_lists_begin_at_the_timecode_of_the_video(
    tmp_path: Path, rate: Fraction, timecode: str, first: int
) -> None:
    expected = [(name, first + start, end - start) for name, start, end in EXPECTED]
    edl = written(tmp_path / "e.edl", rate, timecode=timecode)
    (track,) = otio.adapters.read_from_file(str(edl), rate=float(rate)).tracks
    assert spans(track) == expected
    timeline = otio.adapters.read_from_file(
        str(written(tmp_path / "e.otio", rate, timecode=timecode))
    )
    assert sorted(span for track in timeline.tracks for span in spans(track)) == sorted(expected)
    for clip in timeline.find_clips():
        offset = clip.source_range.start_time - clip.range_in_parent().start_time
        assert offset.value == first
