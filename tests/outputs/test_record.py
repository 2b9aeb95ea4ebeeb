"""What a result was made from can be read from the result itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import pytest

from av2tsam_cli.files import content_id
from av2tsam_cli.outputs.record import ResultRecord, why_different
from av2tsam_cli.outputs.writers import Format, check_target

from .conftest import Job

MakeClip = Callable[..., Path]
RECORD = ResultRecord("duet.mp4", "1234", "nano", "abcd", {"text": "the dög", "format": "masks"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("o.mp4", "video"),
        ("o.mov", "cutout"),
        ("o.mkv", "matte"),
        ("o.webm", "cutout"),
        ("out", "masks"),
        ("out", "coco"),
        ("out", "yolo"),
        ("out", "npz"),
    ],
)
def test_every_format_says_what_it_was_made_from(
    make_clip: MakeClip, job: Job, tmp_path: Path, name: str, kind: Format
) -> None:
    clip = make_clip("duet.mp4", rate=5, seconds=0.6)
    job(clip, tmp_path / name, kind, record=RECORD)
    result = tmp_path / name if "." in name else tmp_path / name / "duet"
    assert why_different(result, RECORD.fingerprint) == ""
    for part, why in (
        ("input_id", "was made from another input"),
        ("model_id", "was made with another model"),
        ("options", "was made with other options"),
    ):
        other = replace(RECORD, **{part: {} if part == "options" else "5678"})
        assert why_different(result, other.fingerprint) == why
    check_target(result, kind, source=clip, overwrite=True)  # the record is no foreign file


def test_a_video_keeps_its_title_beside_the_record(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    """Options such as a phrase may be private, so that a video only has a hash of them."""
    job(make_clip(seconds=0.2), tmp_path / "o.mp4", record=RECORD)
    with av.open(str(tmp_path / "o.mp4")) as video:
        (tag,) = [text for text in video.metadata.values() if "av2tsam" in text]
    assert tag.startswith("av2tsam 1 input=1234 model=abcd options=")
    assert "dog" not in tag


def test_a_folder_says_in_words_what_it_was_made_from(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    job(make_clip("duet.mp4", rate=5, seconds=0.6), tmp_path, "masks", record=RECORD)
    content = json.loads((tmp_path / "duet" / "av2tsam.json").read_text("utf-8"))
    assert (content["input"], content["model"]) == ("duet.mp4", "nano")
    assert content["options"] == RECORD.options
    assert content["files"] == 3


@pytest.mark.parametrize("text", ["", "{}", '{"fingerprint": 3}', '{"fingerprint": {"a": 1}}'])
def test_other_files_are_no_records(tmp_path: Path, text: str) -> None:
    (tmp_path / "av2tsam.json").write_text(text)
    (tmp_path / "o.mp4").write_text("not a video")
    for path in (tmp_path, tmp_path / "o.mp4", tmp_path / "missing.mp4"):
        assert why_different(path, RECORD.fingerprint) == "does not say what it was made from"


def test_the_content_of_a_file_identifies_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(5_000_000))
    before = content_id(path)
    (tmp_path / "b").write_bytes(bytes(5_000_000))
    assert content_id(tmp_path / "b") == before
    for place in (0, 2_500_000, 4_999_999):
        content = bytearray(5_000_000)
        content[place] = 1
        path.write_bytes(content)
        assert content_id(path) != before
    path.write_bytes(bytes(5_000_001))
    assert content_id(path) != before
    path.write_bytes(b"")
    assert len(content_id(path)) == 16
