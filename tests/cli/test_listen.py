"""`av2tsam listen` with nano: formats, files, names, and inputs that cannot be used."""

import csv
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.words.listen import Listening

from .. import real_set

SAMPLES = Path(__file__).parents[2] / "sample_media"
DUET, SOLO = SAMPLES / "duet.mp4", SAMPLES / "solo.mp4"
MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]


class Listen:
    """Runs `av2tsam listen` with nano and keeps its output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object, model: object = "nano") -> int:
        code = main(["listen", *map(str, words), "--device", "cpu", "--model", str(model)])
        self.out, self.err = self.capsys.readouterr()
        return code

    @property
    def only_line(self) -> str:
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def listen(capsys: pytest.CaptureFixture[str]) -> Listen:
    return Listen(capsys)


def heard(record: dict[str, Any], name: str) -> list[tuple[float, float]]:
    return [(e["start_s"], e["end_s"]) for e in record["events"] if e["name"] == name]


def test_json_has_the_times_of_what_is_heard(listen: Listen) -> None:
    assert listen(DUET, "--json") == 0
    record = json.loads(listen.out)
    assert set(record) == {field.name for field in fields(Listening)} | {
        "status",
        "error",
        "exit_code",
    }
    assert (record["input"], record["model"]) == (str(DUET), "nano")
    assert record["duration_s"] == pytest.approx(8.0, abs=0.05)
    # The dog is heard from 0 to 2 s, the trumpet from 2 to 4 s, both from 4 to 6 s, then nothing.
    assert heard(record, "dog") == [(0.0, 2.0), (4.0, 6.0)]
    assert heard(record, "trumpet") == [(2.0, 6.0)]
    assert all(0 < event["score"] <= 1 for event in record["events"])
    starts = [event["start_s"] for event in record["events"]]
    assert starts == sorted(starts)


def test_without_a_format_a_table_is_printed(listen: Listen) -> None:
    assert listen(SOLO) == 0
    head, *rows = listen.out.splitlines()
    assert head.split() == ["from", "to", "name", "score"]
    assert rows[0].split()[:3] == ["0:00.0", "0:05.0", "frog"]
    assert listen(SOLO, DUET, "--name", "frog") == 0
    assert [line for line in listen.out.splitlines() if "mp4" in line] == [str(SOLO), str(DUET)]
    assert f"{DUET}: nothing of the vocabulary is heard" in listen.err


def test_each_format_has_the_same_events(listen: Listen) -> None:
    assert listen(DUET, "--json") == 0
    events = json.loads(listen.out)["events"]
    assert listen(DUET, "--csv") == 0
    rows = list(csv.DictReader(listen.out.splitlines()))
    assert [(row["name"], float(row["start_s"])) for row in rows] == [
        (event["name"], event["start_s"]) for event in events
    ]
    assert listen(DUET, "--srt") == 0
    assert listen.out.startswith("1\n00:00:00,000 --> 00:00:02,000\ndog\n\n2\n")
    assert listen(DUET, "--vtt") == 0
    assert listen.out.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:02.000\ndog\n\n")
    assert listen(DUET, "--audacity") == 0
    assert [line.split("\t")[2] for line in listen.out.splitlines()] == [e["name"] for e in events]


def test_an_audio_file_is_heard_like_the_video(listen: Listen, tmp_path: Path) -> None:
    with av.open(str(SOLO)) as source, av.open(str(tmp_path / "a.wav"), "w") as target:
        track: Any = target.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for frame in source.decode(audio=0):
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    assert listen(tmp_path / "a.wav", "--json") == 0
    assert heard(json.loads(listen.out), "frog") == [(0.0, 5.0)]


def test_names_restrict_what_is_listened_for(listen: Listen, tmp_path: Path) -> None:
    assert listen(DUET, "--json", "--name", "trumpet") == 0
    assert {event["name"] for event in json.loads(listen.out)["events"]} == {"trumpet"}
    (tmp_path / "mine.txt").write_text("trumpet\nfrog\n")
    assert listen(DUET, "--json", "--vocabulary", tmp_path / "mine.txt") == 0
    assert {event["name"] for event in json.loads(listen.out)["events"]} == {"trumpet"}


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("--name", "dgo"), 2, "unknown name 'dgo'; did you mean 'dog'?"),
        (("--vocabulary", "absent.txt"), 2, "absent.txt: file not found"),
        (("--vocabulary", "empty.txt"), 3, "empty.txt: contains no source"),
        (("--vocabulary", "bad.toml"), 3, "bad.toml, line 3: "),
        (("--csv", "--srt"), 2, "--csv and --srt exclude each other"),
        (("--vtt", "--json"), 2, "--json and --vtt exclude each other"),
        (("--out", "folder"), 2, "folder: no format is given; pass --json, --csv, --srt, --vtt or"),
        (("--csv", "--out", "a.srt"), 2, "a.srt: --csv writes .csv files, not .srt"),
    ],
)
def test_usage_errors_are_one_line(
    listen: Listen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "bad.toml").write_text('[[source]]\nname = "dog"\nsound = 3\n')
    assert listen(SOLO, *words) == code
    assert complaint in listen.only_line
    assert listen.out == ""
    assert {path.name for path in tmp_path.iterdir()} == {"empty.txt", "bad.toml"}


def test_an_input_that_fails_does_not_stop_the_others(
    listen: Listen, make_clip: MakeClip, tmp_path: Path
) -> None:
    silent = make_clip("silent.mp4", seconds=0.2)
    assert listen(silent) == 3
    assert listen.only_line == (
        f"av2tsam: error: {silent}: has no audio; use a file with an audio stream"
    )
    (tmp_path / "notes.wav").write_text("no audio at all")
    assert listen(silent, tmp_path / "notes.wav", SOLO, "--json") == 3
    failed, unreadable, done = map(json.loads, listen.out.splitlines())
    assert failed["exit_code"] == unreadable["exit_code"] == 3
    assert "not a readable media file" in unreadable["error"]
    assert heard(done, "frog")
    assert listen(silent, tmp_path / "absent.wav") == 1
    assert "absent.wav: file not found" in listen.err


def test_files_are_named_after_the_inputs(listen: Listen, tmp_path: Path) -> None:
    assert listen(SOLO, DUET, "--srt", "--out", tmp_path / "new") == 0
    assert listen.out == ""
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"solo.srt", "duet.srt"}
    text = (tmp_path / "new" / "solo.srt").read_text()
    assert text == "1\n00:00:00,000 --> 00:00:05,000\nfrog\n\n"
    assert listen(SOLO, "--srt", "--out", tmp_path / "new") == 2
    assert "solo.srt: already exists; set --overwrite" in listen.only_line
    assert listen(SOLO, "--srt", "--out", tmp_path / "new", "--overwrite", "--quiet") == 0
    assert listen.err == ""


def test_one_file_has_the_format_of_its_suffix(listen: Listen, tmp_path: Path) -> None:
    assert listen(SOLO, "-o", tmp_path / "a.json", "--name", "frog") == 0
    assert listen.out == ""
    assert heard(json.loads((tmp_path / "a.json").read_text()), "frog") == [(0.0, 5.0)]
    assert listen(SOLO, DUET, "-o", tmp_path / "b.json") == 2
    assert "cannot hold the output of 2 inputs; set --out to a folder" in listen.only_line
    assert listen(SOLO, DUET, "--vtt") == 2
    assert "--vtt is one file per input; set --out to a folder" in listen.only_line


def test_a_model_that_cannot_name_sounds(listen: Listen, tiny_model: Path) -> None:
    assert listen(SOLO, DUET, "--json", model=tiny_model) == 4
    assert f"{tiny_model}: contains no text encoder" in listen.only_line
    assert [json.loads(line)["exit_code"] for line in listen.out.splitlines()] == [4, 4]


def test_clap_is_used_as_soon_as_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path))
    words = ["listen", str(SOLO), "--json", "--device", "cpu"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "nano"
    assert "for recordings, run 'av2tsam models pull real'" in err
    real_set.install(tmp_path, "clap-laion")
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "clap-laion"
    assert "nano" not in err
    (tmp_path / "roberta-tokenizer.bpe").unlink()
    assert main(words) == 4
    assert "'av2tsam models pull roberta-tokenizer'" in capsys.readouterr().err
