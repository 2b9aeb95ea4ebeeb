"""Folders of PNGs: names, values, and folders that are complete or absent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from av2tsam_cli.errors import Av2tsamError
from av2tsam_cli.outputs.overlay import draw_overlay
from av2tsam_cli.values import Frame

MakeClip = Callable[..., Path]
Job = Callable[..., list[float]]


def read_png(path: Path) -> npt.NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return np.asarray(picture, np.uint8)


def left_of(frame: Frame) -> npt.NDArray[np.bool_]:
    """A mask whose width is the frame's index."""
    mask = np.zeros(frame.rgb.shape[:2], bool)
    mask[:, : frame.index] = True
    return mask


def test_one_mask_per_frame_of_0_and_255(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    job(make_clip("duet.mp4", size=(62, 46)), tmp_path / "out", "masks", masked=left_of)
    files = sorted((tmp_path / "out" / "duet").iterdir())
    assert [file.name for file in files] == [f"{k:06d}.png" for k in range(25)]
    for k, file in enumerate(files):
        mask = read_png(file)
        assert mask.shape == (46, 62)
        assert mask.dtype == np.uint8
        assert (mask[:, :k] == 255).all()
        assert (mask[:, k:] == 0).all()


def test_overlays_are_the_drawn_frames_in_true_colours(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    seen = {}

    def masked(frame: Frame) -> npt.NDArray[np.bool_]:
        seen[frame.index] = draw_overlay(frame.rgb, left_of(frame))
        return left_of(frame)

    job(make_clip(), tmp_path / "out", "overlays", masked=masked)
    files = sorted((tmp_path / "out" / "clip").iterdir())
    assert len(files) == 25
    np.testing.assert_array_equal(read_png(files[20])[:, :, ::-1], seen[20])


def test_names_outside_ascii(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    job(make_clip("夏 ñ.mp4", seconds=0.2), tmp_path / "où", "masks")
    assert len(list((tmp_path / "où" / "夏 ñ").iterdir())) == 5


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no")])
def test_a_failure_leaves_nothing_behind(
    make_clip: MakeClip, job: Job, tmp_path: Path, error: BaseException
) -> None:
    clip = make_clip()
    with pytest.raises(type(error)):
        job(clip, tmp_path / "a" / "b", "masks", fail_after=7, error=error)
    assert list(tmp_path.iterdir()) == [clip]


def test_a_failure_keeps_the_earlier_result(make_clip: MakeClip, job: Job, tmp_path: Path) -> None:
    clip = make_clip()
    job(clip, tmp_path / "out", "masks", stop_s=0.2)
    with pytest.raises(ValueError, match="no"):
        job(clip, tmp_path / "out", "masks", overwrite=True, fail_after=7, error=ValueError("no"))
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["clip"]
    assert len(list((tmp_path / "out" / "clip").iterdir())) == 5


def test_overwriting_replaces_the_whole_folder(
    make_clip: MakeClip, job: Job, tmp_path: Path
) -> None:
    clip = make_clip()
    job(clip, tmp_path / "out", "masks")
    job(clip, tmp_path / "out", "masks", stop_s=0.2, overwrite=True)
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["clip"]
    assert len(list((tmp_path / "out" / "clip").iterdir())) == 5


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(
    make_clip: MakeClip, job: Job, tmp_path: Path, files_up_to: Callable[[int], Any]
) -> None:
    clip = make_clip()
    with files_up_to(60), pytest.raises(Av2tsamError, match="cannot be written") as failed:
        job(clip, tmp_path / "out", "overlays")
    assert failed.value.exit_code == 1
    assert str(failed.value).startswith(str(tmp_path / "out" / "clip"))
    assert list(tmp_path.iterdir()) == [clip]
