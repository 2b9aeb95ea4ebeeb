"""The examples run as they stand, on small videos."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from .conftest import SAMPLES, cut_sample

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in an empty folder; one that uses `av2tsam` gets the tiny model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AV2TSAM_MODEL", str(tiny_model))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))

    def run_program(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(  # noqa: S603 - our own scripts
            [str(word) for word in words], capture_output=True, text=True, check=False, **options
        )
        assert done.returncode == 0, done.stderr
        return done

    return run_program


def frames_of(path: Path) -> list[Any]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def sound_s(path: Path) -> float:
    """Return how long the sound of a file is, in seconds."""
    with av.open(path) as container:
        (stream,) = container.streams.audio
        samples = sum(frame.samples for frame in container.decode(stream))
        return samples / stream.rate


def test_the_readme_names_every_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| \[([^]]+)\]", text, re.MULTILINE))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}


def test_a_tree_becomes_mattes_and_is_resumed(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name in ("a/clip.mp4", "b/deep/clip.mp4"):  # equal names in different folders
        cut_sample("solo.mp4", 0.1, tmp_path / "videos" / name)
    script = EXAMPLES / "tree-to-mattes.sh"
    run(script, "videos", "out")
    mattes = [tmp_path / "out" / name for name in ("a/clip.mp4", "b/deep/clip.mp4")]
    assert all(frames_of(matte) for matte in mattes)
    before = [matte.stat().st_mtime_ns for matte in mattes]
    again = run(script, "videos", "out")
    assert again.stderr.count("skipped") == 2
    assert [matte.stat().st_mtime_ns for matte in mattes] == before


def test_only_videos_with_a_dog_become_a_data_set(
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AV2TSAM_MODEL", "nano")  # the tiny model recognises nothing
    cut_sample("duet.mp4", 0.5, tmp_path / "videos" / "my pets" / "line\nbreak.mp4")
    cut_sample("crowd.mp4", 0.5, tmp_path / "videos" / "bell.mp4")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    done = run(EXAMPLES / "data-set-of-dogs.sh", "videos", "dogs")
    assert "not all videos could be listened to" in done.stderr
    (found,) = (tmp_path / "dogs").rglob("annotations.json")
    assert found.parent == tmp_path / "dogs" / "my pets" / "line\nbreak"
    data = json.loads(found.read_text())
    assert [category["name"] for category in data["categories"]] == ["dog"]
    assert data["annotations"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the example needs ffmpeg")
def test_only_the_barks_are_kept(
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AV2TSAM_MODEL", "nano")
    run(EXAMPLES / "keep-barks.sh")  # the dog barks from 0 to 2 and from 4 to 6 s
    barks = tmp_path / "barks.mp4"
    frames = frames_of(barks)
    assert len(frames) / 25 == pytest.approx(4, abs=0.5)
    assert sound_s(barks) == pytest.approx(len(frames) / 25, abs=0.05)
    original = frames_of(SAMPLES / "duet.mp4")
    last = [np.abs(frames[-1].astype(int) - frame).mean() for frame in original]
    assert 5.5 < int(np.argmin(last)) / 25 < 6.1


def test_make_makes_what_is_missing_or_old(
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AV2TSAM_MODEL", "nano")
    video = cut_sample("duet.mp4", 0.5, tmp_path / "videos" / "dog.mp4")
    make = ("make", "-f", EXAMPLES / "Makefile", "VIDEOS=videos")
    subtitles = tmp_path / "out" / "dog.srt"
    run(*make, "out/dog.srt")
    assert subtitles.read_text().splitlines()[2] == "dog"
    matte = "out/dog-matte.mp4"
    missing = f"av2tsam segment videos/dog.mp4 -o {matte} --format matte --overwrite"
    assert run(*make, "-n").stdout == f"{missing}\n"
    Path(matte).touch()
    assert "Nothing to be done" in run(*make).stdout
    later = subtitles.stat().st_mtime + 10
    os.utime(video, (later, later))
    assert len(run(*make, "-n").stdout.splitlines()) == 2


def test_the_crop_follows_the_sound(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AV2TSAM_HOME", str(tmp_path / "home"))  # nano is the default
    video = cut_sample("solo.mp4", 0.5, tmp_path / "solo.mp4")
    out = tmp_path / "upright.mp4"
    monkeypatch.setattr(sys, "argv", ["follow_sound.py", str(video), str(out)])
    runpy.run_path(str(EXAMPLES / "follow_sound.py"), run_name="__main__")
    frames, original = frames_of(out), frames_of(video)
    assert len(frames) == len(original)
    assert frames[0].shape == (360, 202, 3)
    assert sound_s(out) == sound_s(video)
    place = cv2.matchTemplate(original[-1], frames[-1], cv2.TM_SQDIFF)
    left = int(np.argmin(place))
    mask = cv2.imread(str(SAMPLES / "solo_masks" / f"{len(original) - 1:06}.png"), 0)
    middle = np.nonzero(mask)[1].mean()
    assert left + 101 == pytest.approx(middle, abs=20)
