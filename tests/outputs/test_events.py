"""Sound events as text, read back by the rules of each format."""

import csv
import html
import io
import re

import pytest

from av2tsam_cli.outputs.events import to_audacity, to_csv, to_srt, to_vtt
from av2tsam_cli.values import SoundEvent

EVENTS = (
    SoundEvent("dog", 0.0, 1.5, 0.91),
    SoundEvent('rock & roll, "live"', 1.0, 59.9996, 0.5),
    SoundEvent("Kirchenglöckchen 夏", 3599.25, 3661.007, 0.123456),
)
SRT_CUE = re.compile(
    r"(\d+)\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n([^\n]+)\n\n"
)
VTT_CUE = re.compile(r"(\d\d):(\d\d):(\d\d)\.(\d{3}) --> (\d\d):(\d\d):(\d\d)\.(\d{3})\n([^\n]+)")


def seconds(hours: str, minutes: str, whole: str, ms: str) -> float:
    assert int(minutes) < 60
    assert int(whole) < 60
    return int(hours) * 3600 + int(minutes) * 60 + int(whole) + int(ms) / 1000


def test_csv_is_read_back() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(EVENTS))))
    assert [row["name"] for row in rows] == [event.name for event in EVENTS]
    for row, event in zip(rows, EVENTS, strict=True):
        assert float(row["start_s"]) == pytest.approx(event.start_s, abs=5e-4)
        assert float(row["end_s"]) == pytest.approx(event.end_s, abs=5e-4)
        assert float(row["score"]) == pytest.approx(event.score, abs=5e-4)


def test_subrip_is_read_back() -> None:
    text = to_srt(EVENTS)
    cues = SRT_CUE.findall(text)
    assert SRT_CUE.sub("", text) == ""
    assert [int(cue[0]) for cue in cues] == [1, 2, 3]
    for cue, event in zip(cues, EVENTS, strict=True):
        assert seconds(*cue[1:5]) == pytest.approx(event.start_s, abs=5e-4)
        assert seconds(*cue[5:9]) == pytest.approx(event.end_s, abs=5e-4)
        assert cue[9] == event.name


def test_webvtt_is_read_back() -> None:
    head, *cues = to_vtt(EVENTS).rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    for cue, event in zip(cues, EVENTS, strict=True):
        match = VTT_CUE.fullmatch(cue)
        assert match
        assert seconds(*match.groups()[:4]) == pytest.approx(event.start_s, abs=5e-4)
        assert seconds(*match.groups()[4:8]) == pytest.approx(event.end_s, abs=5e-4)
        assert "&" not in re.sub(r"&(amp|lt|gt);", "", match[9])
        assert html.unescape(match[9]) == event.name


def test_audacity_labels_are_read_back() -> None:
    for line, event in zip(to_audacity(EVENTS).splitlines(), EVENTS, strict=True):
        start, end, name = line.split("\t")
        assert (float(start), float(end), name) == (event.start_s, event.end_s, event.name)


def test_names_cannot_break_the_formats() -> None:
    events = [SoundEvent("a\n\n2\t--> <b>", 0.0, 1.0, 1.0)]
    assert to_srt(events) == "1\n00:00:00,000 --> 00:00:01,000\na 2 -> <b>\n\n"
    assert to_vtt(events).endswith("\na 2 --&gt; &lt;b&gt;\n\n")
    assert to_audacity(events) == "0.000000\t1.000000\ta 2 --> <b>\n"
    assert list(csv.reader(io.StringIO(to_csv(events))))[1][0] == events[0].name


def test_nothing_heard() -> None:
    assert to_csv(()) == "name,start_s,end_s,score\n"
    assert to_srt(()) == ""
    assert to_vtt(()) == "WEBVTT\n\n"
    assert to_audacity(()) == ""
