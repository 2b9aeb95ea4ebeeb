import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.__main__ import main
from av2tsam_cli.cli import segment as segment_command
from av2tsam_cli.hub.checkpoint import load_network, write_tensors
from av2tsam_cli.pipeline import SegmentResult

MakeClip = Callable[..., Path]
Tone = Callable[..., npt.NDArray[np.float32]]
Records = list[dict[str, Any]]


class Segment:
    """Runs `av2tsam segment` with the tiny model and stores its output."""

    def __init__(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model = model
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *words: object, model: object = None) -> int:
        code = main(
            ["segment", *map(str, words), "--device", "cpu", "--model", str(model or self.model)]
        )
        self.out, self.err = self.capsys.readouterr()
        return code

    @property
    def records(self) -> Records:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def only_line(self) -> str:
        (line,) = self.err.splitlines()
        return line


@pytest.fixture
def segment(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Segment:
    return Segment(tiny_model, capsys)


@pytest.fixture
def clip(make_clip: MakeClip, tone: Tone) -> Path:
    return make_clip(rate=8, sounds=[{"samples": tone(1.0)}])


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_an_overlay_video_contains_every_frame_and_the_audio(
    segment: Segment, clip: Path, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    assert segment(clip, "--out", out) == 0
    with av.open(str(out)) as video:
        assert len(video.streams.audio) == 1
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(pictures) == 8
    assert pictures[0].shape == (48, 64, 3)
    assert not segment.out
    # The clip is grey, so any colour comes from the highlight.
    assert any(np.ptp(picture.astype(int), axis=2).max() > 40 for picture in pictures)


@pytest.mark.parametrize("kind", ["masks", "overlays"])
def test_a_folder_contains_one_png_per_frame(
    segment: Segment, clip: Path, tmp_path: Path, kind: str
) -> None:
    assert segment(clip, "--out", tmp_path / "out", "--format", kind) == 0
    assert names(tmp_path / "out") == [
        "clip",
        *(f"clip/{k:06d}.png" for k in range(8)),
        "clip/av2tsam.json",
    ]
    picture = cv2.imread(str(tmp_path / "out/clip/000003.png"), cv2.IMREAD_UNCHANGED)
    if kind == "masks":
        assert picture.shape == (48, 64)
        assert set(np.unique(picture)) == {0, 255}
    else:
        assert picture.shape == (48, 64, 3)


def test_json_prints_one_object_on_stdout_and_notes_on_stderr(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    assert segment(clip, "--json", "--out", tmp_path / "o.mp4") == 0
    (record,) = segment.records
    keys = {field.name for field in fields(SegmentResult)}
    assert set(record) == keys | {"status", "error", "exit_code"}
    assert (record["status"], record["error"], record["exit_code"]) == ("done", None, 0)
    assert record["input"] == str(clip)
    assert record["outputs"] == [str(tmp_path / "o.mp4")]
    assert record["frames"] == 8
    assert record["duration_s"] == pytest.approx(1.0)
    assert record["frames_with_mask"] == 8
    assert 0 < record["mean_area"] < 1
    assert (record["format"], record["size"], record["rate"]) == ("video", [64, 48], "8")
    assert (record["start"], record["has_audio"], record["silent_s"]) == (0, True, 0)
    assert "8 frames" in segment.only_line


def test_json_has_the_same_keys_for_done_skipped_and_failed_inputs(
    segment: Segment, make_clip: MakeClip, tone: Tone, tmp_path: Path
) -> None:
    silence = np.zeros((1, 48_000), np.float32)
    sound = np.concatenate([tone(1.0), silence, tone(1.0)], axis=1)
    make_clip("a.mp4", rate=4, seconds=3, sounds=[{"samples": sound}])
    make_clip("b.mp4", rate=4, seconds=2)
    words = ("--json", "-o", tmp_path / "out", "-f", "masks", "--start", "0.5")
    assert segment(tmp_path / "b.mp4", *words) == 0
    (tmp_path / "c.mp4").write_text("not a video")
    assert segment(tmp_path, *words, "--skip-existing") == 3
    done, skipped, failed = sorted(segment.records, key=lambda record: str(record["input"]))
    assert [each["status"] for each in (done, skipped, failed)] == ["done", "skipped", "failed"]
    assert list(done) == list(skipped) == list(failed)
    assert done["silent_s"] == pytest.approx(1.0, abs=0.3)
    assert skipped["outputs"] == [str(tmp_path / "out" / "b")]
    assert failed["outputs"] == failed["sources"] == []
    assert (failed["frames"], failed["size"], failed["exit_code"]) == (None, None, 3)
    assert segment(tmp_path / "a.mp4", "--dry-run", *words, "--overwrite") == 0
    (planned,) = segment.records
    assert set(planned) == set(done)
    assert planned["status"] == "planned"
    for key in ("outputs", "format", "start", "rate", "size", "has_audio", "frames", "duration_s"):
        assert planned[key] == done[key]


def test_repeated_frames_are_computed_once_unless_reuse_is_off(
    segment: Segment, make_clip: MakeClip, tone: Tone, tmp_path: Path
) -> None:
    def slide(_: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        return np.full((height, width, 3), 90, np.uint8)

    clip = make_clip(rate=8, picture=slide, sounds=[{"samples": tone(1.0)}])
    words = (clip, "--out", tmp_path / "o.mp4", "--json", "--overwrite")
    assert segment(*words) == 0
    assert segment.records[0]["frames_computed"] == 1
    assert segment.records[0]["frames_with_mask"] == 8
    assert segment(*words, "--reuse", "off") == 0
    assert segment.records[0]["frames_computed"] == 8
    assert segment(*words, "--reuse", "300") == 2
    assert "--reuse must be between 0 and 255" in segment.err


def test_quiet_prints_nothing(segment: Segment, make_clip: MakeClip, tmp_path: Path) -> None:
    assert segment(make_clip(rate=4), "--out", tmp_path / "o.mp4", "--quiet") == 0
    assert (segment.out, segment.err) == ("", "")


def test_without_audio_a_note_is_printed_and_all_masks_are_empty(
    segment: Segment, make_clip: MakeClip, tmp_path: Path
) -> None:
    clip = make_clip(rate=4)
    assert segment(clip, "--out", tmp_path / "o.mp4", "--json") == 0
    assert segment.err.splitlines()[0] == f"av2tsam: {clip}: no audio, so all masks are empty"
    assert segment.records[0]["frames_with_mask"] == 0
    assert segment.records[0]["mean_area"] == 0


def test_text_needs_no_audio(segment: Segment, make_clip: MakeClip, tmp_path: Path) -> None:
    words = (make_clip(rate=4), "--out", tmp_path / "o.mp4", "--json", "--text", "the dog")
    assert segment(*words) == 0
    assert "4 with 'the dog'" in segment.only_line
    assert segment.records[0]["text"] == "the dog"
    assert segment.records[0]["frames_with_mask"] == 4


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--text", "the cat"), "vocabulary does not contain cat; use: the, dog, bell, drum"),
        (("--text", " "), "--text is empty"),
        (("--text", "the dog", "--require-audio"), "--require-audio"),
        (("--text", "the dog", "--silence-dbfs", "off"), "--silence-dbfs"),
    ],
)
def test_unusable_text_is_a_usage_error(
    segment: Segment, clip: Path, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    other = shutil.copy(clip, tmp_path / "other.mp4")
    assert segment(clip, other, "--out", tmp_path / "out", "--format", "masks", *words) == 2
    assert complaint in segment.only_line
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_audio_parts_needs_text(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    network = load_network(segment.model)
    weights = {n: t for n, t in network.state_dict().items() if n.startswith("text_sam.")}
    text_only = tmp_path / "text_only.safetensors"
    write_tensors(weights, text_only, network.config)
    words = (clip, "--out", tmp_path / "o.mp4")
    assert segment(*words, "--text", "the bell", model=text_only) == 0
    assert segment(*words, "--overwrite", model=text_only) == 4
    assert f"{text_only}: contains no weights for audio" in segment.only_line
    assert "--text" in segment.only_line


def test_missing_audio_is_an_error_with_require_audio(
    segment: Segment, make_clip: MakeClip, tmp_path: Path
) -> None:
    assert segment(make_clip(rate=4), "--out", tmp_path / "o.mp4", "--require-audio") == 3
    assert "has no audio" in segment.only_line
    assert names(tmp_path) == ["clip.mp4"]


def test_a_truncated_video_is_an_error_unless_a_part_of_it_is_enough(
    segment: Segment, make_clip: MakeClip, tmp_path: Path, tone: Tone
) -> None:
    faststart = {"movflags": "+faststart"}
    clip = make_clip(rate=10, sounds=[{"samples": tone(1.0)}], container_options=faststart)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 5])
    for out in ("o.mp4", "o"):
        words = [clip, "--out", tmp_path / out, "--format", "video" if "." in out else "masks"]
        assert segment(*words) == 3
        assert segment.only_line.startswith(f"av2tsam: error: {clip}: truncated, ")
        assert segment.only_line.endswith(", or set --allow-partial to use the readable part")
        assert names(tmp_path) == ["clip.mp4"]
    assert segment(*words[:3], "--format", "masks", "--allow-partial", "--json") == 0
    [record] = segment.records
    assert 0 < record["frames"] < 10
    assert record["damage"]["truncated"]
    missing_s = record["damage"]["missing_s"]
    assert 1 - record["duration_s"] == pytest.approx(missing_s, abs=0.5)
    assert "the rest is missing" in segment.err


def test_options_change_the_result(
    segment: Segment, make_clip: MakeClip, tone: Tone, tmp_path: Path
) -> None:
    sounds = [
        {"samples": tone(3.0) * 0, "language": "deu"},
        {"samples": tone(3.0), "language": "eng"},
    ]
    clip = make_clip(seconds=3, rate=10, sounds=sounds)
    common = ("--out", tmp_path / "o.mp4", "--json", "--overwrite")
    assert segment(clip, *common, "--start", "0:01", "--end", "2.5") == 0
    assert segment.records[0]["frames"] == 15
    assert segment.records[0]["frames_with_mask"] == 0  # the first track is silent
    assert segment(clip, *common, "--audio-stream", "eng", "--fps", "2") == 0
    assert segment.records[0]["frames_with_mask"] == 30
    assert segment(clip, *common, "--audio-stream", "1", "--threshold", "0.999") == 0
    assert segment.records[0]["frames_with_mask"] == 0
    assert segment(clip, *common, "--silence-dbfs", "off", "--batch-size", "2") == 0
    assert segment.records[0]["frames_with_mask"] == 30
    assert segment(clip, *common, "--audio-stream", "eng", "--precision", "bf16") == 0
    assert segment.records[0]["precision"] == "bf16"


def test_inputs_may_come_before_and_after_options(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    other = shutil.copy(clip, tmp_path / "other.mp4")
    out = tmp_path / "out"
    assert segment(clip, "--out", out, "--format", "masks", other, "--quiet") == 0
    assert names(out)[0::10] == ["clip", "other"]


def test_each_input_becomes_a_video_and_a_failure_does_not_stop_the_others(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    shutil.copy(clip, tmp_path / "other.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    pattern = tmp_path / "*.mp4"
    out = tmp_path / "new" / "out"
    assert segment(pattern, "--out", out, "--format", "video", "--json") == 3
    assert names(out) == ["clip.mp4", "other.mp4"]
    failed = [record for record in segment.records if record["error"]]
    assert len(segment.records) == 3
    assert [record["input"] for record in failed] == [str(tmp_path / "broken.mp4")]
    assert failed[0]["exit_code"] == 3


def test_failures_with_different_exit_codes_give_exit_code_1(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_text("not a video")
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / "000000.png").touch()
    words = (clip, tmp_path / "broken.mp4", "--out", tmp_path / "out", "--format", "masks")
    assert segment(*words) == 1
    assert len(segment.err.splitlines()) == 2


def test_existing_outputs_are_kept_or_replaced(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.mp4"
    out.write_bytes(b"precious")
    assert segment(clip, "--out", out, "--json") == 2
    assert "--overwrite" in segment.only_line
    assert "--overwrite" in segment.records[0]["error"]
    assert segment(clip, "--out", out, "--skip-existing") == 2
    assert segment.only_line == (
        f"av2tsam: error: {out}: already exists, but does not say what it was made from; set "
        "--overwrite to replace it, or choose another path"
    )
    assert out.read_bytes() == b"precious"
    assert segment(clip, "--out", out, "--overwrite") == 0
    assert out.read_bytes() != b"precious"


@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_only_the_same_result_is_skipped(
    segment: Segment, clip: Path, make_clip: MakeClip, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"o{suffix}"
    words = ("--out", out, *(() if suffix else ("-f", "masks")), "--skip-existing")
    table = ("--frames-csv", tmp_path / "t.csv")
    result = out if suffix else out / "clip"
    if not suffix:
        result.mkdir(parents=True)  # an empty folder is no result
    assert segment(clip, *words, *table) == 0
    made = result.stat().st_mtime_ns, (tmp_path / "t.csv").stat().st_mtime_ns

    def kept() -> bool:
        return made == (result.stat().st_mtime_ns, (tmp_path / "t.csv").stat().st_mtime_ns)

    (tmp_path / "x").mkdir()
    moved = clip.rename(tmp_path / "x" / "clip.mp4")
    os.utime(moved, (1, 1))
    assert segment(moved, *words, *table, "--overwrite", "--batch-size", "1") == 0
    assert segment.only_line == (
        f"av2tsam: {moved}: skipped, {result} is complete and made with the same options"
    )
    assert kept()
    for other, why in (
        ((*table, "--threshold", "0.4"), "was made with other options"),
        ((), "was made with other options"),  # without the table
        (("--frames-csv", tmp_path / "u.csv"), "was made with other options"),
    ):
        assert segment(moved, *words, *other) == 2
        assert f"{result}: already exists, but {why}; set --overwrite" in segment.only_line
    assert segment(moved, *words, *table, model="nano") == 2
    assert "was made with another model; set" in segment.only_line
    assert kept()
    make_clip("x/clip.mp4", rate=4)
    assert segment(moved, *words, *table) == 2
    assert "was made from another input; set" in segment.only_line
    assert kept()
    assert segment(moved, *words, *table, "--overwrite", "--quiet") == 0
    assert not kept()


def test_an_incomplete_result_is_not_skipped(segment: Segment, clip: Path, tmp_path: Path) -> None:
    folder, video = ("--out", tmp_path / "out", "-f", "masks"), ("--out", tmp_path / "o.mp4")
    assert segment(clip, *folder) == segment(clip, *video) == 0
    (tmp_path / "out" / "clip" / "000003.png").unlink()
    content = (tmp_path / "o.mp4").read_bytes()
    (tmp_path / "o.mp4").write_bytes(content[: len(content) * 4 // 5])
    for words in (folder, video):
        assert segment(clip, *words, "--skip-existing") == 2
        assert "already exists, but is incomplete; set --overwrite" in segment.only_line


def test_an_interrupted_batch_goes_on_where_it_stopped(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    """The main output of the first input was written, but not yet the file beside it."""
    shutil.copy(clip, tmp_path / "other.mp4")
    out = tmp_path / "out"
    words = (tmp_path / "*.mp4", "--out", out, "-f", "masks", "--frames-csv", out, "--json")
    assert segment(*words, "--end", "0.3") == 0
    (out / "clip.csv").unlink()
    shutil.rmtree(out / "other")
    (out / "other.csv").unlink()
    assert segment(*words, "--end", "0.3", "--skip-existing") == 0
    assert [record["status"] for record in segment.records] == ["done", "done"]
    assert f"{out / 'clip'}: is replaced ({out / 'clip.csv'} is missing)" in segment.err
    assert segment(*words, "--end", "0.3", "--skip-existing") == 0
    assert [record["status"] for record in segment.records] == ["skipped", "skipped"]


def test_videos_of_a_large_batch_are_probed_in_blocks(
    segment: Segment, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_command, "PROBED_AHEAD", 1)
    other = shutil.copy(clip, tmp_path / "other.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    (tmp_path / "list").write_text(f"{clip}\n{tmp_path / 'broken.mp4'}\n{other}\nnone.mp4\n")
    words = ("--files-from", tmp_path / "list", "-o", tmp_path / "out", "-f", "masks", "--json")
    assert segment(*words, "--end", "0.3") == 1
    # What does not exist is known before any video is processed.
    assert [(each["input"], each["status"]) for each in segment.records] == [
        ("none.mp4", "failed"),
        (str(clip), "done"),
        (str(tmp_path / "broken.mp4"), "failed"),
        (str(other), "done"),
    ]


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "day1").mkdir()
    shutil.copy(clip, tmp_path / "day1" / "clip.mp4")
    out = tmp_path / "out"
    words = (tmp_path, "-r", "--out", out, "-f", "matte", "--name-template", "{folder}/m_{stem}")
    missing = tmp_path / "none.safetensors"  # no model is loaded
    assert segment(*words, "--dry-run", model=missing) == 0
    assert segment.out.splitlines() == [
        f"{clip} -> {out / 'm_clip.mp4'}: matte, 8 frames, 1.0 s",
        f"{tmp_path / 'day1' / 'clip.mp4'} -> {out / 'day1' / 'm_clip.mp4'}: matte, 8 frames, "
        "1.0 s",
    ]
    assert not segment.err
    assert not out.exists()
    assert segment(*words, "--quiet") == 0
    (tmp_path / "broken.mp4").write_text("not a video")
    assert segment(*words, "-n", "--skip-existing") == 3
    assert "broken.mp4" in segment.only_line
    assert [line.partition(": ")[2][:7] for line in segment.out.splitlines()] == ["skipped"] * 2


def test_inputs_with_the_same_output_are_a_usage_error(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    other = shutil.copy(clip, tmp_path / "a" / "CLIP.mp4")
    out = tmp_path / "out"
    assert segment(clip, other, "--out", out, "--format", "masks") == 2
    assert str(clip) in segment.only_line
    assert str(other) in segment.only_line
    assert not out.exists()


def test_several_inputs_cannot_be_written_to_one_video(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    other = shutil.copy(clip, tmp_path / "other.mp4")
    assert segment(clip, other, "--out", tmp_path / "o.mp4") == 2
    assert "set --out to a folder" in segment.only_line


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_pipes_stdin_and_link_loops_are_one_line(segment: Segment, tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for source, complaint in (
        (pipe, "pipes and devices are not supported; save the input to a file first"),
        ("-", "stdin is not supported; save the input to a file first"),
        (loop, "a symbolic link to no file; check where it points"),
    ):
        assert segment(source, "--out", tmp_path / "o.mp4") == 2
        assert segment.only_line == f"av2tsam: error: {source}: {complaint}"


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_other_files_than_videos_may_not_be_pipes_either(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    complaint = f"av2tsam: error: {pipe}: pipes and devices are not supported"
    assert main(["listen", str(clip), "--vocabulary", str(pipe), "-m", "nano"]) == 2
    assert main(["vocabulary", "check", str(pipe)]) == 2
    assert main(["train", "-o", str(tmp_path / "run"), "--config", str(pipe)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(complaint) for line in lines)


def test_a_loop_of_links_is_no_folder_for_masks(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for overwrite in ((), ("--overwrite",)):
        assert segment(clip, "-o", loop, "-f", "masks", *overwrite) == 2
        complaint = "a symbolic link to no folder; check where it points"
        assert segment.only_line == f"av2tsam: error: {loop}: {complaint}"
    assert loop.is_symlink()


def test_a_folder_of_videos_may_have_a_dot_in_its_name(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    assert segment(clip, "--out", tmp_path / "out.v2", "--format", "video") == 0
    assert names(tmp_path / "out.v2") == ["clip.mp4"]


def test_duplicate_inputs_are_processed_once(segment: Segment, clip: Path, tmp_path: Path) -> None:
    assert segment(clip, tmp_path / "." / "clip.mp4", "--out", tmp_path / "o.mp4", "--json") == 0
    assert len(segment.records) == 1


@pytest.mark.parametrize(
    ("out", "words", "complaint"),
    [
        ("o.avi", (), "cannot write .avi; use .mp4, .mov, .mkv or .webm"),
        ("o.avi", ("--format", "video"), "cannot write .avi; use .mp4, .mov, .mkv or .webm"),
        ("folder", (), "--format"),
        ("o.mp4", ("--format", "masks"), "needs a folder"),
        ("clip.mp4", ("--overwrite",), "is the input itself"),
        ("o.mp4", ("--start", "5"), "--start (5 s) is after its end (1 s)"),
        (
            "o.mp4",
            ("--start", "3", "--end", "2"),
            "--end must be later than --start (2 s is not after 3 s)",
        ),
        ("o.mp4", ("--audio-stream", "7"), "no audio stream 7"),
        ("o.mp4", ("--precision", "fp16"), "--precision fp16"),
        ("o.mp4", ("--codec", "prores"), "o.mp4: .mp4 does not hold prores; end the name in .mov"),
        ("o.mp4", ("--crf", "52"), "--crf must be from 0 to 51 for h264, not 52"),
        ("o.webm", ("--pix-fmt", "yuv420p10le"), "--pix-fmt yuv420p10le is not for vp9; use"),
        ("masks", ("--format", "masks", "--crf", "9"), "--crf has no effect on --format masks"),
        ("clip.mp4/o.mp4", (), "clip.mp4"),
        ("a" * 300, ("--format", "masks"), "File name too long; use a shorter name"),
    ],
)
def test_unusable_outputs_and_options_are_usage_errors(
    segment: Segment, clip: Path, tmp_path: Path, out: str, words: tuple[str, ...], complaint: str
) -> None:
    assert segment(clip, "--out", tmp_path / out, *words) == 2
    assert complaint in segment.only_line
    assert names(tmp_path) == ["clip.mp4"]


def write_text(path: Path) -> None:
    path.write_text("once upon a time\n" * 50)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "code"), [(Path.unlink, 2), (make_folder, 2), (write_text, 3), (cut_short, 3)]
)
def test_missing_and_unreadable_inputs_have_their_own_exit_codes(
    segment: Segment, clip: Path, tmp_path: Path, spoil: Callable[[Path], None], code: int
) -> None:
    spoil(clip)
    before = names(tmp_path)
    assert segment(clip, "--out", tmp_path / "o.mp4") == code
    assert str(clip) in segment.only_line
    assert segment(clip, "--out", tmp_path / "out", "--format", "masks") == code
    assert names(tmp_path) == before


@pytest.mark.parametrize("content", [None, b"", b"junk" * 100])
def test_unreadable_weights_give_exit_code_4(
    segment: Segment, clip: Path, tmp_path: Path, content: bytes | None
) -> None:
    weights = tmp_path / "weights.safetensors"
    if content is not None:
        weights.write_bytes(content)
    other = shutil.copy(clip, tmp_path / "other.mp4")
    words = (clip, other, "--out", tmp_path / "out", "--format", "masks", "--json")
    assert segment(*words, model=weights) == 4
    assert str(weights) in segment.only_line
    assert [record["exit_code"] for record in segment.records] == [4, 4]
    assert not (tmp_path / "out").exists()


def test_an_unavailable_device_is_a_usage_error(
    clip: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("mps is available")
    out = str(tmp_path / "o.mp4")
    words = ["segment", str(clip), "--out", out, "--model", str(tiny_model), "--device", "mps"]
    assert main(words) == 2
    assert "--device mps" in capsys.readouterr().err


def test_unusual_names_and_sizes_work(
    segment: Segment, make_clip: MakeClip, tone: Tone, tmp_path: Path
) -> None:
    clip = make_clip(
        "мой клип [1] 🎬.mkv",
        rate=4,
        size=(51, 37),
        pixel_format="yuv444p",
        sounds=[{"samples": tone(1.0)}],
    )
    assert segment(clip, "--out", tmp_path / "out", "--format", "masks") == 0
    picture = (tmp_path / "out" / clip.stem / "000000.png").read_bytes()
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape == (37, 51)


# A signal can arrive between the opening of a file and its `with`; Python then closes the file with
# a warning.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["video", "masks"])
def test_an_interruption_removes_unfinished_outputs_and_exits_with_130(
    segment: Segment,
    make_clip: MakeClip,
    tone: Tone,
    tmp_path: Path,
    number: signal.Signals,
    kind: str,
) -> None:
    clip = make_clip(seconds=40, sounds=[{"samples": tone(40.0)}])
    out = tmp_path / ("o.mp4" if kind == "video" else "out")
    arrived: list[int] = []
    before = signal.signal(number, lambda found, _: arrived.append(found))

    over = threading.Event()

    def interrupt_when_it_writes() -> None:
        while not over.wait(0.05):
            with suppress(FileNotFoundError):  # a folder was removed while it was listed
                if list(tmp_path.rglob("*.part")):
                    os.kill(os.getpid(), number)
                    return

    thread = threading.Thread(target=interrupt_when_it_writes, daemon=True)
    thread.start()
    try:
        table = ("--frames-csv", tmp_path / "new" / "frames.csv")
        code = segment(clip, "--out", out, "--format", kind, "--json", *table)
    finally:
        over.set()
        thread.join()
        signal.signal(number, before)
    assert code == 130
    assert not arrived
    assert "interrupted" in segment.only_line
    assert segment.records[0]["exit_code"] == 130
    assert names(tmp_path) == ["clip.mp4"]


def test_files_beside_the_main_output_are_named_after_their_inputs(
    segment: Segment, clip: Path, tmp_path: Path
) -> None:
    shutil.copy(clip, tmp_path / "other.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    out = tmp_path / "out"
    words = (tmp_path / "*.mp4", "--out", out, "-f", "masks", "--frames-csv", out, "--json")
    assert segment(*words) == 3
    assert {name for name in names(out) if "/" not in name} == {
        "clip",
        "clip.csv",
        "other",
        "other.csv",
    }
    written = {Path(record["input"]).stem: record.get("outputs") for record in segment.records}
    assert written["clip"] == [str(out / "clip"), str(out / "clip.csv")]
    assert segment(*words, "--skip-existing") == 3
    skipped = [record for record in segment.records if record["status"] == "skipped"]
    assert [record["outputs"] for record in skipped] == [written["clip"], written["other"]]


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("t.tsv", "--frames-csv cannot write .tsv files; use .csv, or the name of a folder"),
        ("t.csv", "cannot hold the output of 2 inputs; set --frames-csv to a folder"),
        ("full", "full/clip.csv: already exists; set --overwrite"),
        ("/proc/t", "/proc/t/clip.csv: cannot be written"),
    ],
)
def test_unusable_files_beside_the_main_output_are_refused_before_any_work(
    segment: Segment, clip: Path, tmp_path: Path, path: str, complaint: str
) -> None:
    other = shutil.copy(clip, tmp_path / "other.mp4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "clip.csv").touch()
    (tmp_path / "full" / "other.csv").touch()
    words = ("--out", tmp_path / "out", "-f", "masks", "--frames-csv", tmp_path / path)
    assert segment(clip, other, *words) == 2
    assert complaint in segment.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("clip.csv", "clip.csv: is the input itself; choose another --frames-csv"),
        ("out/clip", "out/clip/clip.csv: belongs to --out; choose another --frames-csv"),
    ],
)
def test_a_file_beside_the_main_output_replaces_neither_the_input_nor_that_output(
    segment: Segment, clip: Path, tmp_path: Path, path: str, complaint: str
) -> None:
    source = clip.rename(tmp_path / "clip.csv")
    words = ("--out", tmp_path / "out", "-f", "masks", "--frames-csv", tmp_path / path)
    assert segment(source, *words, "--overwrite") == 2
    assert complaint in segment.only_line
    assert names(tmp_path) == ["clip.csv"]


def test_a_note_is_printed_when_nano_is_used_by_default(
    make_clip: MakeClip, tone: Tone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(rate=2, sounds=[{"samples": tone(1.0)}])
    words = ["segment", str(clip), "--out", str(tmp_path / "o.mp4"), "--overwrite", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["model"] == "nano"
    assert err.startswith("av2tsam: using nano, a demo model that only recognises drawn scenes;")
    assert "'av2tsam models pull real'" in err.splitlines()[0]
    assert main([*words, "--model", "nano"]) == 0
    assert "using nano" not in capsys.readouterr().err
    assert main([*words, "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_short_videos_are_not_compiled(segment: Segment, clip: Path, tmp_path: Path) -> None:
    assert segment(clip, "--out", tmp_path / "out.mp4", "--compile", "--json") == 0
    assert "not compiled: this saves time from 20000 frames on" in segment.err
    assert [record["frames"] for record in segment.records] == [8]
